//! How many descriptors this process may have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as sessions of a server and the pipes of their bays may need, and few enough for a
/// child that closes all that it could have inherited.
const WANTED: u64 = 8192;

/// Raises the limit that we may raise ourselves (`RLIMIT_NOFILE`, the soft one), which is 1024 for
/// the sake of programs that use select(2), to [`WANTED`] or as far as it goes.
pub fn raise_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = WANTED.min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_limit().unwrap();
        let after = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(after, (before.max(WANTED.min(hard)), hard));
    }
}
