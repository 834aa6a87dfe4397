//! The face of this module on platforms without native stacks.

use crate::error::{Error, ErrorKind, Result};

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "native stacks need Linux on x86-64"))
}

/// Stacks of this process's own threads.
pub mod threads {
    use super::super::Captured;
    use super::{Result, unsupported};

    /// Reads native stacks; cannot be made here.
    #[derive(Debug)]
    pub enum StackReader {}

    impl StackReader {
        /// Always `Unsupported`.
        ///
        /// # Errors
        /// `Unsupported`.
        pub fn new() -> Result<Self> {
            unsupported()
        }

        /// Does nothing.
        pub fn warm_up(&self) {
            match *self {}
        }

        /// Cannot be called.
        ///
        /// # Errors
        /// None.
        pub fn capture(&self, _tid: u32) -> Result<Captured> {
            match *self {}
        }

        /// Cannot be called.
        pub fn symbol(&self, _file_address: u64) -> Option<String> {
            match *self {}
        }

        /// Cannot be called.
        pub fn build_id(&self) -> Option<String> {
            match *self {}
        }
    }
}

/// CPU profiles.
pub mod cpu {
    use std::time::Duration;

    use super::super::CpuSamples;
    use super::Result;
    use super::threads::StackReader;

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn cpu_profile(
        reader: &StackReader,
        _duration: Duration,
        _stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuSamples> {
        match *reader {}
    }
}
