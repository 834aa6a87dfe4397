//! stub
use crate::model::StreamId;
use std::sync::Arc;
#[derive(Debug, Default)]
pub struct Streams {}
#[derive(Debug, Clone)]
pub struct SlotInfo {
    pub id: StreamId,
    pub method: Arc<str>,
    pub peer: Option<Arc<str>>,
}
pub struct Slots {}
impl Slots {
    pub fn get(&self, _slot: u32) -> Option<&SlotInfo> {
        None
    }
}
impl Streams {
    pub fn retain(&self, _slot: u32) {}
    pub fn release(&self, _slot: u32) {}
    pub fn slots(&self) -> Slots {
        Slots {}
    }
    pub fn info(&self, _slot: u32) -> Option<SlotInfo> {
        None
    }
}
