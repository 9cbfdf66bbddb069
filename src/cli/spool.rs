//! The flags of the breakpoint files at the sending side.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::usage;
use crate::breakpoint::segment::SegmentPages;
use crate::engine::settings::{Spool, When};
use crate::error::{Failure, Side};
use crate::spool::folder;
use crate::units::Bytes;

/// What happens when the cache is full.
#[derive(Args, Debug)]
#[command(next_help_heading = "Spool")]
pub(super) struct SpoolFlags {
    /// A folder for breakpoint files: when the cache is full, blocks are moved there, so that
    /// `zfs send` keeps its speed and ends soon, however slow or broken the network is. Takes as
    /// much room as the network is behind. Best on a disk of its own; on the pool that is sent or
    /// received it would take part of that pool's speed
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// When blocks are moved to breakpoint files: `full`, when the cache is; `never`, so that the
    /// source waits for the network [default: full with --spool, else never]
    #[arg(long, value_enum, value_name = "WHEN")]
    spool_when: Option<SpoolWhen>,
    /// The most that breakpoint files may take, 64MiB or more. When they do the source waits, and
    /// nothing fails [default: all but a twentieth of DIR's file system]
    #[arg(long, value_name = "SIZE", requires = "spool")]
    spool_max: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SpoolWhen {
    Never,
    Full,
}

impl SpoolFlags {
    /// Where the engine shall put what the cache has no room for. Removes what killed processes
    /// have left there, and says so.
    pub fn place(&self) -> Result<Option<Spool>, Failure> {
        let segment = SegmentPages::STANDARD;
        let folder = match (&self.spool, self.spool_when) {
            (None, Some(SpoolWhen::Full)) => {
                return Err(usage(Side::Source, "--spool-when full names no place for the files")
                    .with_remedy("add --spool DIR, a folder on a disk with room"));
            }
            (None, _) | (Some(_), Some(SpoolWhen::Never)) => return Ok(None),
            (Some(folder), _) => folder.clone(),
        };
        if let Some(max) = self.spool_max.filter(|&max| max < segment.bytes()) {
            let least = segment.bytes();
            let what = format!("--spool-max {max} is less than one breakpoint file has: {least}");
            return Err(usage(Side::Source, what));
        }
        let found = folder::prepare(&folder).map_err(|error| {
            let what = format!("no breakpoint files can be made in {}: {error}", folder.display());
            usage(Side::Source, what).with_remedy(
                "make --spool name a folder that is there and that this user may write to",
            )
        })?;
        if found.folders > 0 {
            tracing::warn!(
                "removed {} of breakpoint files that a process which was killed left in {}",
                found.bytes,
                folder.display()
            );
        }
        Ok(Some(Spool { when: When::Full, folder, segment, max: self.spool_max }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn flags(spool: Option<&str>, when: Option<SpoolWhen>, max: Option<Bytes>) -> SpoolFlags {
        SpoolFlags { spool: spool.map(PathBuf::from), spool_when: when, spool_max: max }
    }

    #[test]
    fn files_are_made_only_where_a_folder_was_named() {
        assert_eq!(flags(None, None, None).place().unwrap(), None);
        assert_eq!(flags(None, Some(SpoolWhen::Never), None).place().unwrap(), None);
        let nowhere = flags(None, Some(SpoolWhen::Full), None).place().unwrap_err();
        assert_eq!(nowhere.class, Class::Usage);
        assert!(nowhere.remedy.unwrap().contains("--spool DIR"));
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str();
        let place = flags(name, None, None).place().unwrap().unwrap();
        assert_eq!((place.folder.as_path(), place.max), (folder.path(), None));
        assert_eq!(flags(name, Some(SpoolWhen::Never), None).place().unwrap(), None);
    }

    #[test]
    fn a_place_that_cannot_be_used_and_a_limit_below_one_file_are_mistakes_of_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        let tiny = flags(folder.path().to_str(), None, Some(Bytes(1 << 20))).place().unwrap_err();
        assert!(tiny.what.contains("64.0 MiB"), "{tiny}");
        for bad in ["/nowhere/at/all", "/proc", "/dev/null"] {
            let failure = flags(Some(bad), None, None).place().unwrap_err();
            assert_eq!(failure.class, Class::Usage);
            assert!(failure.what.contains(bad), "{failure}");
        }
    }
}
