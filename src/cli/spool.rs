//! The flags of the breakpoint files, at the sending side and at the receiving one.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::typed::typed;
use super::usage;
use crate::breakpoint::segment::SegmentPages;
use crate::engine::settings::{Spool, When};
use crate::error::{Failure, Side};
use crate::spool::folder;
use crate::units::Bytes;

/// Where a client puts what it read.
#[derive(Args, Debug)]
#[command(next_help_heading = "Spool")]
pub(super) struct SpoolFlags {
    /// A folder for breakpoint files: when the cache is full, blocks are moved there, so that
    /// `zfs send` keeps its speed and ends soon, however slow or broken the network is. Takes as
    /// much room as the network is behind. Best on a disk of its own; on the pool that is sent or
    /// received it would take part of that pool's speed
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// When blocks are moved to breakpoint files: `full`, when the cache is; `always`, all of them,
    /// so that once the stream is there whole this process, or its host, may die: the next run
    /// sends the rest from the files and reads nothing again; `never`, so that the source waits for
    /// the network [default: full with --spool, else never]
    #[arg(long, value_enum, value_name = "WHEN")]
    spool_when: Option<SpoolWhen>,
    /// The most that breakpoint files may take, 64MiB or more, 128MiB with `always`. When they do
    /// the source waits, and nothing fails [default: all but a twentieth of DIR's file system]
    #[arg(long, value_name = "SIZE", requires = "spool")]
    spool_max: Option<Bytes>,
}

/// Where a server keeps what it received.
#[derive(Args, Debug)]
#[command(next_help_heading = "Spool")]
pub(super) struct KeepFlags {
    /// A folder for breakpoint files: every block is durable there before it is acknowledged. If
    /// this process or its host dies in the middle of a stream that ZFS cannot resume, the next
    /// one with the same folder begins to receive it anew from these files, and its sender goes on
    /// where it was. Takes as much room as the stream is long, and a disk that is fast enough
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Whether blocks are kept in breakpoint files [default: always with --spool, else never]
    #[arg(long, value_enum, value_name = "WHEN")]
    spool_when: Option<KeepWhen>,
    /// The most that breakpoint files may take. A longer stream goes on without being kept, and
    /// that is said [default: all but a twentieth of DIR's file system]
    #[arg(long, value_name = "SIZE", requires = "spool")]
    spool_max: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SpoolWhen {
    Never,
    Full,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeepWhen {
    Never,
    Always,
}

impl SpoolFlags {
    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Result<Vec<String>, Failure> {
        let SpoolFlags { spool, spool_when, spool_max } = self;
        let folder = spool.as_ref().map(|folder| {
            folder.to_str().ok_or_else(|| {
                let what = format!("--spool {} cannot be told to another host", folder.display());
                usage(Side::Source, what).with_remedy("name a folder with letters of UTF-8")
            })
        });
        let mut words = Vec::new();
        words.extend(folder.transpose()?.map(|folder| format!("--spool={folder}")));
        words.extend(spool_when.as_ref().map(|when| format!("--spool-when={}", typed(when))));
        words.extend(spool_max.map(|most| format!("--spool-max={}", most.0)));
        Ok(words)
    }

    /// Where the engine shall put what the cache has no room for, or all that it reads. Removes
    /// what killed processes have left there for nobody, and says so.
    pub fn place(&self) -> Result<Option<Spool>, Failure> {
        let when = match (self.spool_when, &self.spool) {
            (Some(SpoolWhen::Never), _) | (None, None) => return Ok(None),
            (Some(SpoolWhen::Always), _) => When::Always,
            (Some(SpoolWhen::Full), _) | (None, Some(_)) => When::Full,
        };
        place(Side::Source, when, self.spool.as_deref(), self.spool_max)
    }
}

impl KeepFlags {
    /// Where the engine shall keep all that it receives; otherwise as [`SpoolFlags::place`].
    pub fn place(&self) -> Result<Option<Spool>, Failure> {
        match (self.spool_when, &self.spool) {
            (Some(KeepWhen::Never), _) | (None, None) => Ok(None),
            _ => place(Side::Target, When::Always, self.spool.as_deref(), self.spool_max),
        }
    }
}

/// Where records go that streams need which outlive their process: beside their files, if there is
/// no other place.
pub(super) fn state_beside<'a>(
    state: Option<&'a Path>,
    spool: Option<&'a Spool>,
) -> Option<&'a Path> {
    let kept = spool.filter(|spool| spool.when == When::Always);
    state.or(kept.map(|spool| spool.folder.as_path()))
}

fn place(
    here: Side,
    when: When,
    folder: Option<&Path>,
    max: Option<Bytes>,
) -> Result<Option<Spool>, Failure> {
    let segment = SegmentPages::STANDARD;
    let Some(folder) = folder else {
        return Err(usage(here, "--spool-when names no place for the breakpoint files")
            .with_remedy("add --spool DIR, a folder on a disk with room"));
    };
    // What is kept goes once two records say so; until then the next file needs room as well.
    let files = if when == When::Always { 2 } else { 1 };
    let least = Bytes(files * segment.bytes().0);
    if let Some(max) = max.filter(|&max| max < least) {
        let what = format!("--spool-max {max} is less than breakpoint files need here: {least}");
        return Err(usage(here, what));
    }
    let found = folder::prepare(folder).map_err(|error| {
        let what = format!("no breakpoint files can be made in {}: {error}", folder.display());
        usage(here, what)
            .with_remedy("make --spool name a folder that is there and that this user may write to")
    })?;
    if found.folders > 0 {
        tracing::warn!(
            "removed {} of breakpoint files that a process which was killed left in {}",
            found.bytes,
            folder.display()
        );
    }
    Ok(Some(Spool { when, folder: folder.to_owned(), segment, max, account: None }))
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
        for when in [SpoolWhen::Full, SpoolWhen::Always] {
            let nowhere = flags(None, Some(when), None).place().unwrap_err();
            assert_eq!(nowhere.class, Class::Usage);
            assert!(nowhere.remedy.unwrap().contains("--spool DIR"));
        }
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str();
        let place = flags(name, None, None).place().unwrap().unwrap();
        assert_eq!((place.folder.as_path(), place.max), (folder.path(), None));
        assert_eq!(place.when, When::Full);
        assert_eq!(state_beside(None, Some(&place)), None);
        let place = flags(name, Some(SpoolWhen::Always), None).place().unwrap().unwrap();
        assert_eq!(place.when, When::Always);
        assert_eq!(state_beside(None, Some(&place)), Some(folder.path()));
        assert_eq!(state_beside(Some(Path::new("/a")), Some(&place)), Some(Path::new("/a")));
        assert_eq!(flags(name, Some(SpoolWhen::Never), None).place().unwrap(), None);
    }

    #[test]
    fn a_place_that_cannot_be_used_and_a_limit_below_one_file_are_mistakes_of_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        let tiny = flags(folder.path().to_str(), None, Some(Bytes(1 << 20))).place().unwrap_err();
        assert!(tiny.what.contains("64.0 MiB"), "{tiny}");
        let (name, one_file) = (folder.path().to_str(), Some(Bytes(64 << 20)));
        assert!(flags(name, Some(SpoolWhen::Full), one_file).place().is_ok());
        assert!(flags(name, Some(SpoolWhen::Always), one_file).place().is_err());
        for bad in ["/nowhere/at/all", "/proc", "/dev/null"] {
            let failure = flags(Some(bad), None, None).place().unwrap_err();
            assert_eq!(failure.class, Class::Usage);
            assert!(failure.what.contains(bad), "{failure}");
        }
    }
}
