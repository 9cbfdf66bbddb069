//! What this machine offers: the facts behind `zferry doctor`.
//!
//! Plain data, read once and printed by others. One fact that cannot be read must never hide the
//! rest, so each carries its own error; and nothing is concluded from a version number where it
//! can be tried.

use std::fs;
use std::io;
use std::path::Path;

use io_uring::{Builder, IoUring, Probe, opcode};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{self, Gid, getegid, geteuid, getgroups};

use crate::backend::{self, DISABLED_KNOB, TRIAL_ENTRIES, WhyNot};
use crate::cpu;
use crate::pipe::Pipe;
use crate::socket::CONGESTION_AVAILABLE;

/// The pipe that a transfer asks for.
const PIPE_WANTED_BYTES: usize = 1 << 20;

/// The bit of `CAP_IPC_LOCK` in `/proc/self/status`.
const CAP_IPC_LOCK: u32 = 14;

/// One fact, or why it could not be read.
pub type Reading<T> = io::Result<T>;

/// Everything that [`Facts::read`] finds out.
#[derive(Debug)]
pub struct Facts {
    /// What `uname -r` prints.
    pub kernel_release: Reading<String>,
    /// Rings, and what they can do.
    pub uring: Uring,
    /// How much memory may be registered with a ring.
    pub memlock: Reading<Memlock>,
    /// How large pipes may be.
    pub pipes: Pipes,
    /// Whether the arena gets huge pages.
    pub huge_pages: Reading<HugePages>,
    /// The cores that we may use, ascending.
    pub cores: Reading<Vec<usize>>,
    /// How TCP paces.
    pub congestion: Congestion,
    /// Whose rights we have.
    pub account: Account,
}

/// The user and the groups whose rights we have: the effective ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The number of the user; 0 is root.
    pub user: u32,
    /// The name of the user, where one is known.
    pub name: Option<String>,
    /// All groups.
    pub groups: Vec<Group>,
}

/// A group that a user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// Its name, where one is known.
    pub name: Option<String>,
}

/// What `io_uring` offers to this process.
#[derive(Debug)]
pub struct Uring {
    /// Whether a ring can be made, and why not.
    pub usable: Result<(), WhyNot>,
    /// `kernel.io_uring_disabled`; its file is missing before Linux 6.6.
    pub disabled: Reading<u8>,
    /// The operations that the data plane wants.
    pub operations: Reading<Vec<Support>>,
    /// The ring flags that the data plane tries, and features told at set-up.
    pub features: Reading<Vec<Support>>,
}

/// Whether this kernel has one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The kernel's own name, without its prefix.
    pub name: &'static str,
    /// Whether it is there.
    pub supported: bool,
}

/// `RLIMIT_MEMLOCK`, which bounds registered buffers per user (not per process).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// The limit in force, in bytes; `None` is unlimited.
    pub soft: Option<u64>,
    /// How far we may raise it, in bytes.
    pub hard: Option<u64>,
    /// With `CAP_IPC_LOCK` the limit does not count, for rings made while holding it.
    pub exempt: bool,
}

/// What bounds a pipe.
#[derive(Debug)]
pub struct Pipes {
    /// Bytes that a process without `CAP_SYS_RESOURCE` may ask for (`pipe-max-size`).
    pub max_bytes: Reading<u64>,
    /// Pages in all pipes of a user before new ones shrink (`pipe-user-pages-soft`); 0 is no limit.
    pub user_pages_soft: Reading<u64>,
    /// Bytes that a pipe of 1 MiB really got, just now.
    pub granted_bytes: Reading<usize>,
}

/// Where the kernel uses huge pages for anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Wherever they fit.
    Always,
    /// Where a process asks for them: we do.
    Madvise,
    /// Nowhere.
    Never,
}

/// TCP's congestion controls.
#[derive(Debug)]
pub struct Congestion {
    /// What a new socket gets.
    pub default: Reading<String>,
    /// What is loaded.
    pub available: Reading<Vec<String>>,
    /// What an unprivileged process may choose among them.
    pub allowed: Reading<Vec<String>>,
}

impl Facts {
    /// Reads all facts; none of them fails the others.
    pub fn read() -> Facts {
        let root = Path::new("/");
        Facts {
            kernel_release: text(root, "/proc/sys/kernel/osrelease"),
            uring: Uring::read(root),
            memlock: Memlock::read(root),
            pipes: Pipes::read(root),
            huge_pages: HugePages::read(root),
            cores: cpu::allowed(),
            congestion: Congestion::read(root),
            account: Account::read(),
        }
    }
}

/// What a user is called, where that can be looked up.
pub fn user_name(number: u32) -> Option<String> {
    unistd::User::from_uid(number.into()).ok().flatten().map(|user| user.name)
}

impl Account {
    /// A name that cannot be looked up is none.
    fn read() -> Account {
        let user = geteuid();
        let mut numbers = getgroups().unwrap_or_default();
        numbers.push(getegid());
        numbers.sort_by_key(|group| group.as_raw());
        numbers.dedup();
        let group = |number: Gid| {
            let name = unistd::Group::from_gid(number).ok().flatten().map(|group| group.name);
            Group { number: number.as_raw(), name }
        };
        Account {
            user: user.as_raw(),
            name: user_name(user.as_raw()),
            groups: numbers.into_iter().map(group).collect(),
        }
    }
}

impl Uring {
    fn read(root: &Path) -> Uring {
        Uring {
            usable: backend::probe(),
            disabled: number(root, DISABLED_KNOB),
            operations: operations(),
            features: features(),
        }
    }
}

fn operations() -> Reading<Vec<Support>> {
    let ring = IoUring::new(TRIAL_ENTRIES)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let wanted = [
        ("READ_FIXED", opcode::ReadFixed::CODE),
        ("WRITE_FIXED", opcode::WriteFixed::CODE),
        ("SEND", opcode::Send::CODE),
        ("SEND_ZC", opcode::SendZc::CODE),
        ("RECV", opcode::Recv::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ];
    let support = |(name, code)| Support { name, supported: probe.is_supported(code) };
    Ok(wanted.map(support).to_vec())
}

/// Flags are tried, for a kernel refuses a whole set-up because of one that it does not know.
fn features() -> Reading<Vec<Support>> {
    let ring = IoUring::new(TRIAL_ENTRIES)?;
    let told = ring.params();
    let flag = |name, set: fn(&mut Builder) -> &mut Builder| {
        let mut builder = IoUring::builder();
        let supported = set(&mut builder).build(TRIAL_ENTRIES).is_ok();
        Support { name, supported }
    };
    let feature = |name, supported| Support { name, supported };
    Ok(vec![
        flag("SUBMIT_ALL", |builder| builder.setup_submit_all()),
        flag("COOP_TASKRUN", |builder| builder.setup_coop_taskrun()),
        flag("SINGLE_ISSUER+DEFER_TASKRUN", |builder| {
            builder.setup_single_issuer().setup_defer_taskrun()
        }),
        flag("NO_SQARRAY", |builder| builder.setup_no_sqarray()),
        feature("NODROP", told.is_feature_nodrop()),
        feature("FAST_POLL", told.is_feature_fast_poll()),
        feature("EXT_ARG", told.is_feature_ext_arg()),
        feature("MIN_TIMEOUT", told.is_feature_min_timeout()),
        feature("NO_IOWAIT", told.is_feature_no_iowait()),
    ])
}

impl Memlock {
    fn read(root: &Path) -> Reading<Memlock> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        let limited = |bytes| (bytes != RLIM_INFINITY).then_some(bytes);
        let exempt = effective_capabilities(root)? >> CAP_IPC_LOCK & 1 == 1;
        Ok(Memlock { soft: limited(soft), hard: limited(hard), exempt })
    }

    /// Whether a ring made now may register `bytes`, as far as limits tell.
    ///
    /// The kernel counts what all processes of the user have registered: a yes may still fail.
    pub fn permits(&self, bytes: u64) -> bool {
        self.exempt || self.soft.is_none_or(|soft| bytes <= soft)
    }
}

fn effective_capabilities(root: &Path) -> Reading<u64> {
    let status = text(root, "/proc/self/status")?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = bits.ok_or_else(|| io::Error::other("/proc/self/status has no CapEff"))?;
    u64::from_str_radix(bits.trim(), 16).map_err(io::Error::other)
}

impl Pipes {
    fn read(root: &Path) -> Pipes {
        Pipes {
            max_bytes: number(root, "/proc/sys/fs/pipe-max-size"),
            user_pages_soft: number(root, "/proc/sys/fs/pipe-user-pages-soft"),
            granted_bytes: Pipe::new(PIPE_WANTED_BYTES).map(|pipe| pipe.capacity),
        }
    }
}

impl HugePages {
    /// The file reads `always [madvise] never`.
    fn read(root: &Path) -> Reading<HugePages> {
        let modes = text(root, "/sys/kernel/mm/transparent_hugepage/enabled")?;
        let chosen = modes.split_whitespace().find(|mode| mode.starts_with('['));
        match chosen {
            Some("[always]") => Ok(HugePages::Always),
            Some("[madvise]") => Ok(HugePages::Madvise),
            Some("[never]") => Ok(HugePages::Never),
            _ => Err(io::Error::other(format!("unknown huge page modes: {modes}"))),
        }
    }
}

impl Congestion {
    fn read(root: &Path) -> Congestion {
        let words = |path| {
            text(root, path).map(|line| line.split_whitespace().map(str::to_owned).collect())
        };
        Congestion {
            default: text(root, "/proc/sys/net/ipv4/tcp_congestion_control"),
            available: words(CONGESTION_AVAILABLE),
            allowed: words("/proc/sys/net/ipv4/tcp_allowed_congestion_control"),
        }
    }
}

/// A file's text without its last line feed; `root` is `/` except in tests.
fn text(root: &Path, path: &str) -> Reading<String> {
    let place = root.join(path.trim_start_matches('/'));
    let text = fs::read_to_string(place)
        .map_err(|error| io::Error::new(error.kind(), format!("read {path}: {error}")))?;
    Ok(text.trim_end().to_owned())
}

fn number<T>(root: &Path, path: &str) -> Reading<T>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error}"));
    text(root, path)?.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine whose only files are these.
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            let place = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().expect("parent")).expect("directory");
            fs::write(place, text).expect("write");
        }
        root
    }

    #[test]
    fn this_machine_tells_its_facts() {
        let facts = Facts::read();
        println!("{facts:#?}");
        assert!(!facts.kernel_release.expect("release").is_empty());
        assert!(!facts.cores.expect("cores").is_empty());
        assert!(facts.pipes.granted_bytes.expect("pipe") >= 4096);
        assert!(facts.memlock.is_ok());
        let available = facts.congestion.available.expect("available");
        assert!(available.contains(&facts.congestion.default.expect("default")));
    }

    #[test]
    fn the_account_has_the_names_that_id_prints() {
        let id = |flags: &str| {
            let output = std::process::Command::new("id").arg(flags).output().expect("id");
            String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
        };
        let account = Account::read();
        assert_eq!(account.user.to_string(), id("-u"));
        assert_eq!(account.name.as_deref().unwrap_or(&id("-u")), id("-un"));
        let numbers = id("-G");
        let mut expected: Vec<u32> =
            numbers.split(' ').map(|number| number.parse().expect("number")).collect();
        expected.sort_unstable();
        let found: Vec<u32> = account.groups.iter().map(|group| group.number).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_ring_that_can_be_made_tells_its_operations() {
        let uring = Uring::read(Path::new("/"));
        assert_eq!(uring.usable.is_ok(), uring.operations.is_ok());
        assert_eq!(uring.usable.is_ok(), uring.features.is_ok());
        if let Ok(operations) = uring.operations {
            let send = operations.iter().find(|operation| operation.name == "SEND");
            assert!(send.expect("asked for").supported, "since Linux 5.6");
        }
    }

    #[test]
    fn one_missing_file_hides_nothing_else() {
        let root = machine(&[("/proc/sys/fs/pipe-max-size", "1048576\n")]);
        let pipes = Pipes::read(root.path());
        assert_eq!(pipes.max_bytes.expect("is there"), 1 << 20);
        assert!(pipes.granted_bytes.is_ok());
        let missing = pipes.user_pages_soft.expect_err("is missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("pipe-user-pages-soft"), "{missing}");
    }

    #[test]
    fn a_file_that_holds_no_number_is_named() {
        let root = machine(&[("/proc/sys/fs/pipe-max-size", "plenty\n")]);
        let wrong = Pipes::read(root.path()).max_bytes.expect_err("no number");
        assert!(wrong.to_string().contains("pipe-max-size"), "{wrong}");
    }

    #[test]
    fn huge_pages_are_what_stands_in_brackets() {
        let read = |modes| {
            let root = machine(&[("/sys/kernel/mm/transparent_hugepage/enabled", modes)]);
            HugePages::read(root.path())
        };
        assert_eq!(read("always [madvise] never\n").expect("known"), HugePages::Madvise);
        assert_eq!(read("[always] madvise never\n").expect("known"), HugePages::Always);
        assert_eq!(read("always madvise [never]\n").expect("known"), HugePages::Never);
        assert!(read("always\n").is_err());
    }

    #[test]
    fn the_limit_on_locked_memory_does_not_count_for_those_who_may_lock() {
        let read = |capabilities: &str| {
            let status = format!("Name:\tzferry\nCapEff:\t{capabilities}\nSeccomp:\t0\n");
            Memlock::read(machine(&[("/proc/self/status", &status)]).path()).expect("limits")
        };
        assert!(read("0000000000004000").exempt);
        let bound = Memlock { soft: Some(8 << 20), ..read("ffffffffffffbfff") };
        assert!(!bound.exempt);
        assert!(bound.permits(8 << 20) && !bound.permits((8 << 20) + 1));
        assert!(Memlock { soft: None, ..bound }.permits(u64::MAX));
    }
}
