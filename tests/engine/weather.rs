//! What happens to the bytes of one connection: a proxy of two threads and a plan.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use proptest::prelude::*;

/// The plan for one connection; bytes are counted from its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing happens.
    Fair,
    /// Both ends are gone when this byte is due; those before it arrive.
    Cut { byte: u64 },
    /// From this byte on nothing moves, and nobody is told.
    Hole { byte: u64 },
    /// This byte is changed.
    Flip { byte: u64 },
}

pub fn cut(byte: u64) -> Weather {
    Weather::Cut { byte }
}

pub fn hole(byte: u64) -> Weather {
    Weather::Hole { byte }
}

pub fn flip(byte: u64) -> Weather {
    Weather::Flip { byte }
}

pub fn fair_or_cut(bytes: u64) -> impl Strategy<Value = Weather> {
    prop_oneof![1 => Just(Weather::Fair), 3 => (0..bytes).prop_map(cut)]
}

/// Sockets that must stay open although nobody moves their bytes any more.
pub type Holes = Arc<Mutex<Vec<UnixStream>>>;

/// The two ends of a connection with weather in between: the sender's and the receiver's.
pub fn connect(weather: Weather, holes: &Holes) -> (UnixStream, UnixStream) {
    let (sender, from) = UnixStream::pair().unwrap();
    let (to, receiver) = UnixStream::pair().unwrap();
    let (back, front) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    std::thread::spawn(move || {
        // The receiver never says anything; it closes.
        let _ = (&back).read(&mut [0]);
        let _ = front.shutdown(Shutdown::Both);
    });
    let holes = Arc::clone(holes);
    std::thread::spawn(move || {
        if blow(weather, &from, &to) {
            holes.lock().unwrap_or_else(PoisonError::into_inner).extend([from, to]);
        } else {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    });
    (sender, receiver)
}

/// Moves bytes until one side closes or the weather ends it. `true`: it fell silent.
fn blow(weather: Weather, mut from: &UnixStream, mut to: &UnixStream) -> bool {
    let mut buffer = vec![0; 16 << 10];
    let mut moved = 0_u64;
    let end = match weather {
        Weather::Cut { byte } | Weather::Hole { byte } => byte,
        Weather::Fair | Weather::Flip { .. } => u64::MAX,
    };
    loop {
        let due = usize::try_from(end - moved).unwrap_or(usize::MAX).min(buffer.len());
        if due == 0 {
            return matches!(weather, Weather::Hole { .. });
        }
        let count = match from.read(&mut buffer[..due]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        if let Weather::Flip { byte } = weather
            && (moved..moved + count as u64).contains(&byte)
        {
            buffer[usize::try_from(byte - moved).unwrap()] ^= 0x10;
        }
        if to.write_all(&buffer[..count]).is_err() {
            return false;
        }
        moved += count as u64;
    }
}
