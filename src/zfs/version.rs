//! Which ZFS this host has: the command and, apart from it, the kernel module.
//!
//! They differ after an upgrade without a reboot, and the module's version decides what a stream
//! may hold. Versions serve warnings and `doctor`; a feature must never be inferred from one where
//! it can be tried.

use std::fmt;

use super::{Zfs, ZfsError};

/// What `zfs version` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Of the command.
    pub userland: Release,
    /// Of the kernel module; `None` where it is not loaded.
    pub kernel: Option<Release>,
}

/// One released version, ordered by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The 2 of 2.3.9.
    pub major: u32,
    /// The 3 of 2.3.9.
    pub minor: u32,
    /// The 9 of 2.3.9.
    pub patch: u32,
    /// All of it, with what the distribution adds: `2.1.5-1ubuntu6~22.04.4`.
    pub text: String,
}

impl Zfs {
    /// Asks for the versions; a module that is not loaded is an answer too.
    pub fn version(&self) -> Result<Version, ZfsError> {
        let answer = self.run(&["version"])?;
        match read_version(&answer.text) {
            // Without the module it prints one line and fails.
            Some(version) if answer.ended.success() || version.kernel.is_none() => Ok(version),
            None if answer.ended.success() => Err(answer.unreadable(&answer.text)),
            _ => Err(answer.failed()),
        }
    }
}

pub(super) fn read_version(text: &str) -> Option<Version> {
    let mut lines = text.lines();
    let userland = read_release(lines.next()?.strip_prefix("zfs-")?)?;
    let kernel = lines.next().and_then(|line| read_release(line.strip_prefix("zfs-kmod-")?));
    Some(Version { userland, kernel })
}

fn read_release(text: &str) -> Option<Release> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    let (major, minor, patch) = (number()?, number()?, number()?);
    Some(Release { major, minor, patch, text: text.to_owned() })
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(release: &Release) -> (u32, u32, u32) {
        (release.major, release.minor, release.patch)
    }

    #[test]
    fn both_lines_are_read() {
        let version = read_version("zfs-2.3.9-1\nzfs-kmod-2.1.16-1ubuntu6~22.04.4\n").unwrap();
        assert_eq!(numbers(&version.userland), (2, 3, 9));
        let kernel = version.kernel.unwrap();
        assert_eq!(numbers(&kernel), (2, 1, 16));
        assert_eq!(kernel.to_string(), "2.1.16-1ubuntu6~22.04.4");
        assert!(kernel < version.userland);
    }

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, expected) in [
            ("zfs-2.4.0-rc1\n", (2, 4, 0)),
            ("zfs-2.3.99-123_g0123abc\n", (2, 3, 99)),
            ("zfs-2.2.11\n", (2, 2, 11)),
        ] {
            let version = read_version(text).unwrap();
            assert_eq!(numbers(&version.userland), expected, "{text}");
            assert_eq!(version.kernel, None);
        }
        for text in ["", "zfs\n", "zfs-x.y.z\n", "zfs-2.3\n", "unrecognized command 'version'\n"] {
            assert_eq!(read_version(text), None, "{text:?}");
        }
    }
}
