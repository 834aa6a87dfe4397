//! stub
use crate::model::StreamId;
use std::sync::Arc;
#[derive(Debug, Default)]
pub struct Streams {}
#[derive(Debug, Clone)]
pub struct SlotInfo {
    pub stream: StreamId,
    pub method: Arc<str>,
    pub peer: Option<Arc<str>>,
}
impl Streams {
    pub fn retain(&self, _slot: u32) -> bool {
        false
    }
    pub fn release(&self, _slot: u32) {}
    pub fn info(&self, _slot: u32) -> Option<SlotInfo> {
        None
    }
}
