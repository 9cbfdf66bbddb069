//! The end of a stream that nobody wants: read as `zfs receive` would read it, and thrown away.
//!
//! For `zferry tune`, which wants to know how fast a stream comes. A thread copies it out of a pipe
//! and ends with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use sys::pipe::Pipe;

use crate::process::PIPE_BYTES;

/// All streams that one server throws away. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Nowhere {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Nowhere {
    /// How many streams have begun, and how many of them have ended.
    pub fn counts(&self) -> (usize, usize) {
        // In this order: no stream that ended is seen before it began.
        let ended = self.ended.load(Ordering::Acquire);
        (self.begun.load(Ordering::Acquire), ended)
    }

    /// A pipe for one stream.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let pipe = Pipe::new(PIPE_BYTES.as_usize())?;
        let mut reader = File::from(pipe.reader);
        let ended = Arc::clone(&self.ended);
        self.begun.fetch_add(1, Ordering::Release);
        let thread = Builder::new().name("zferry-nowhere".to_owned()).spawn(move || {
            let mut buffer = vec![0; PIPE_BYTES.as_usize()];
            // A stream that is cut ends here too.
            while let Ok(1..) = reader.read(&mut buffer) {}
            ended.fetch_add(1, Ordering::Release);
        });
        thread.inspect_err(|_| {
            self.ended.fetch_add(1, Ordering::Release);
        })?;
        Ok(pipe.writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stream_is_read_to_its_end_and_counted() {
        let nowhere = Nowhere::default();
        let mut writer = File::from(nowhere.open().unwrap());
        assert_eq!(nowhere.counts(), (1, 0));
        // More than the pipe holds.
        writer.write_all(&vec![7; 3 * PIPE_BYTES.as_usize()]).unwrap();
        drop(writer);
        let started = Instant::now();
        while nowhere.counts() != (1, 1) {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", nowhere.counts());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
