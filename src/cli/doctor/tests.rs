//! Bad machines, shown to the judge one by one.

use std::io::{self, ErrorKind};

use clap::CommandFactory;
use sys::backend::WhyNot;
use sys::probe::{Account, Congestion, HugePages, Memlock, Pipes, Support, Uring};

use super::judge::CACHE;
use super::*;
use crate::zfs::ZfsError;
use crate::zfs::allow::Allowed;
use crate::zfs::version::{Release, Version};

fn support(name: &'static str) -> Support {
    Support { name, supported: true }
}

fn release(major: u32, minor: u32, patch: u32) -> Release {
    Release { major, minor, patch, text: format!("{major}.{minor}.{patch}") }
}

fn version(userland: (u32, u32, u32), kernel: (u32, u32, u32)) -> Version {
    let of = |(major, minor, patch)| release(major, minor, patch);
    Version { userland: of(userland), kernel: Some(of(kernel)) }
}

/// A machine that has everything.
fn good() -> Facts {
    Facts {
        machine: sys::probe::Facts {
            kernel_release: Ok("6.12.0".to_owned()),
            uring: Uring {
                usable: Ok(()),
                disabled: Ok(0),
                operations: Ok(vec![support("READ_FIXED"), support("SEND_ZC")]),
                features: Ok(vec![support("NODROP")]),
            },
            memlock: Ok(Memlock { soft: None, hard: None, exempt: false }),
            pipes: Pipes {
                max_bytes: Ok(1 << 20),
                user_pages_soft: Ok(16384),
                granted_bytes: Ok(1 << 20),
            },
            huge_pages: Ok(HugePages::Madvise),
            cores: Ok(vec![0, 1, 2, 3]),
            congestion: Congestion {
                default: Ok("cubic".to_owned()),
                available: Ok(vec!["reno".to_owned(), "cubic".to_owned()]),
                allowed: Ok(vec!["reno".to_owned()]),
            },
            account: Account { user: 0, name: Some("root".to_owned()), groups: Vec::new() },
        },
        zfs: Ok(version((2, 3, 9), (2, 3, 9))),
        device: Ok(()),
        uses: Vec::new(),
        elsewhere: Vec::new(),
        unread: Vec::new(),
    }
}

fn missing(what: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("read {what}: no such file"))
}

#[test]
fn a_machine_that_has_everything_needs_nothing() {
    let findings = judge(&good());
    let unhappy: Vec<_> = findings.iter().filter(|found| found.mark != Mark::Ok).collect();
    assert!(unhappy.is_empty(), "{unhappy:#?}");
    assert!(findings.iter().all(|found| found.remedy.is_none()));
}

/// What is wrong with a machine, the topic and mark that tell it, and words of fact and remedy.
type Case = (fn(&mut Facts), &'static str, Mark, &'static str, &'static str);

const MACHINES: &[Case] = &[
    (|m| m.machine.kernel_release = Err(missing("x")), "kernel", Mark::Warn, "read x", "/proc"),
    (
        |m| m.machine.uring.usable = Err(WhyNot::Disabled(2)),
        "io_uring",
        Mark::Warn,
        "io_uring_disabled is 2",
        "sudo sysctl -w kernel.io_uring_disabled=0",
    ),
    (
        |m| m.machine.uring.usable = Err(WhyNot::Forbidden),
        "io_uring",
        Mark::Warn,
        "seccomp",
        "SystemCallFilter=@aio",
    ),
    (
        |m| m.machine.uring.usable = Err(WhyNot::Missing),
        "io_uring",
        Mark::Warn,
        "no io_uring",
        "CONFIG_IO_URING=y",
    ),
    (
        |m| m.machine.uring.usable = Err(WhyNot::NoMemory),
        "io_uring",
        Mark::Warn,
        "lockable memory",
        "LimitMEMLOCK=infinity",
    ),
    (
        |m| m.machine.uring.operations = Ok(vec![Support { name: "SEND_ZC", supported: false }]),
        "io_uring",
        Mark::Warn,
        "without SEND_ZC",
        "6.1 or newer",
    ),
    (
        |m| m.machine.uring.operations = Err(io::ErrorKind::PermissionDenied.into()),
        "io_uring",
        Mark::Warn,
        "permission denied",
        "io_uring_register",
    ),
    (
        |m| {
            let bytes = Some(64 << 10);
            m.machine.memlock = Ok(Memlock { soft: bytes, hard: bytes, exempt: false });
        },
        "locked memory",
        Mark::Warn,
        "64.0 KiB",
        "/etc/security/limits.d/zferry.conf",
    ),
    (
        |m| {
            m.machine.memlock = Ok(Memlock { soft: Some(8 << 20), hard: None, exempt: false });
        },
        "locked memory",
        Mark::Warn,
        "8.0 MiB",
        "ulimit -l 131072",
    ),
    (
        |m| {
            m.machine.pipes.granted_bytes = Ok(8192);
        },
        "pipes",
        Mark::Warn,
        "8.0 KiB granted of 1.0 MiB",
        "fs.pipe-user-pages-soft=65536",
    ),
    (
        |m| {
            m.machine.pipes.granted_bytes = Ok(65536);
            m.machine.pipes.max_bytes = Ok(65536);
        },
        "pipes",
        Mark::Warn,
        "64.0 KiB",
        "sudo sysctl -w fs.pipe-max-size=1048576",
    ),
    (
        |m| m.machine.pipes.granted_bytes = Err(io::Error::other("too many files")),
        "pipes",
        Mark::Fail,
        "too many files",
        "ulimit -n",
    ),
    (
        |m| m.machine.huge_pages = Ok(HugePages::Never),
        "huge pages",
        Mark::Warn,
        "never",
        "echo madvise | sudo tee",
    ),
    (
        |m| m.machine.huge_pages = Err(missing("enabled")),
        "huge pages",
        Mark::Warn,
        "unknown",
        "CONFIG_TRANSPARENT_HUGEPAGE",
    ),
    (|m| m.machine.cores = Ok(vec![5]), "cores", Mark::Warn, "only 5", "taskset"),
    (
        |m| m.machine.cores = Err(io::ErrorKind::InvalidInput.into()),
        "cores",
        Mark::Warn,
        "invalid",
        "--pin off",
    ),
    (
        |m| m.machine.congestion.default = Ok("bbr".to_owned()),
        "congestion control",
        Mark::Warn,
        "bbr",
        "local network: sudo sysctl -w net.ipv4.tcp_congestion_control=cubic",
    ),
    (
        |m| {
            m.machine.congestion.default = Ok("bbr".to_owned());
            m.machine.congestion.available = Ok(vec!["bbr".to_owned()]);
        },
        "congestion control",
        Mark::Warn,
        "bbr",
        "sudo modprobe tcp_cubic && sudo sysctl",
    ),
    (
        |m| m.zfs = Err(ZfsError::NotFound { searched: "/sbin".to_owned() }),
        "zfs",
        Mark::Fail,
        "no zfs command in /sbin",
        "zfsutils-linux",
    ),
    (
        |m| m.zfs = Ok(Version { userland: release(2, 3, 9), kernel: None }),
        "zfs",
        Mark::Fail,
        "module is not loaded",
        "sudo modprobe zfs",
    ),
    (|m| m.zfs = Ok(version((2, 3, 9), (2, 3, 8))), "zfs", Mark::Warn, "2.3.8", "reboot"),
    (|m| m.zfs = Ok(version((2, 1, 5), (2, 1, 5))), "zfs", Mark::Warn, "2.1.5", "to 2.1.8"),
    (|m| m.zfs = Ok(version((2, 3, 9), (2, 1, 11))), "zfs", Mark::Warn, "2.1.11", "to 2.1.12"),
    (|m| m.zfs = Ok(version((2, 2, 3), (2, 2, 3))), "zfs", Mark::Warn, "2.2.3", "to 2.2.4"),
    (|m| m.machine.account.user = 1000, "rights", Mark::Warn, "user 1000", "sudo zfs allow -u"),
    (
        |m| m.device = Err(io::ErrorKind::NotFound.into()),
        "rights",
        Mark::Fail,
        "no /dev/zfs",
        "--device /dev/zfs",
    ),
    (
        |m| m.device = Err(io::ErrorKind::PermissionDenied.into()),
        "rights",
        Mark::Fail,
        "may not open",
        "sudo chmod 666 /dev/zfs",
    ),
];

#[test]
fn each_bad_machine_is_told_by_one_finding_and_how_to_mend_it() {
    for (number, (spoil, topic, mark, fact, remedy)) in MACHINES.iter().enumerate() {
        let mut facts = good();
        spoil(&mut facts);
        let unhappy: Vec<_> =
            judge(&facts).into_iter().filter(|found| found.mark != Mark::Ok).collect();
        let [found] = unhappy.as_slice() else { panic!("case {number}: {unhappy:#?}") };
        assert_eq!((found.topic, found.mark), (*topic, *mark), "case {number}: {found:#?}");
        assert!(found.fact.contains(fact), "case {number}: {found:#?}");
        assert!(!found.meaning.is_empty());
        let told = found.remedy.as_deref().unwrap_or_default();
        assert!(told.contains(remedy), "case {number}: {found:#?}");
    }
}

#[test]
fn datasets_that_are_named_are_judged_instead_of_told_about() {
    let mut facts = good();
    facts.machine.account.user = 1000;
    for duty in [Duty::Source, Duty::Target] {
        let allowed = Ok(Allowed::read("", &"tank/a".parse().unwrap()).unwrap());
        let (dataset, asks) = ("tank/a".parse().unwrap(), Asks::default());
        facts.uses.push(Use { duty, dataset, asks, allowed });
    }
    let findings = judge(&facts);
    let marks: Vec<_> = findings.iter().map(|found| (found.topic, found.mark)).collect();
    let last = [("rights", Mark::Ok), ("source", Mark::Fail), ("target", Mark::Fail)];
    assert!(marks.ends_with(&last), "{marks:?}");
}

#[test]
fn what_cannot_be_looked_at_is_said_and_jobs_that_cannot_be_read_are_in_the_way() {
    let mut facts = good();
    let (what, ask) = ("zferry://b.example/a of job a".to_owned(), "type this".to_owned());
    facts.elsewhere.push(Elsewhere { duty: Duty::Target, what, ask });
    let failure =
        Failure::new(Side::Source, Class::Usage, "there is no /x").with_remedy("write it");
    facts.unread.push(("jobs", failure));
    let findings = judge(&facts);
    let [.., elsewhere, jobs] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((elsewhere.mark, elsewhere.topic), (Mark::Ok, "target"));
    assert!(elsewhere.fact.contains("is on another host"), "{elsewhere:?}");
    assert!(elsewhere.meaning.ends_with("type this"), "{elsewhere:?}");
    assert_eq!((jobs.mark, jobs.fact.as_str()), (Mark::Fail, "there is no /x"));
    assert_eq!(jobs.remedy.as_deref(), Some("write it"));
}

#[test]
fn limits_that_do_not_bind_are_no_warnings() {
    for memlock in [
        Memlock { soft: Some(65536), hard: Some(65536), exempt: true },
        Memlock { soft: Some(CACHE.0), hard: Some(CACHE.0), exempt: false },
    ] {
        let mut facts = good();
        facts.machine.memlock = Ok(memlock);
        facts.machine.pipes.max_bytes = Err(missing("pipe-max-size"));
        facts.machine.uring.disabled = Err(missing("io_uring_disabled"));
        assert!(judge(&facts).iter().all(|found| found.mark == Mark::Ok), "{memlock:?}");
    }
}

#[test]
fn a_machine_without_anything_gets_all_its_findings() {
    let mut facts = good();
    for (spoil, ..) in MACHINES {
        spoil(&mut facts);
    }
    let findings = judge(&facts);
    assert_eq!(findings.len(), judge(&good()).len());
    assert!(findings.iter().all(|found| found.mark != Mark::Ok && found.remedy.is_some()));
}

#[test]
fn text_has_a_mark_a_meaning_and_a_remedy() {
    let mut facts = good();
    facts.machine.huge_pages = Ok(HugePages::Never);
    let mut text = Vec::new();
    print(&judge(&facts), false, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("[ ok ] kernel: Linux 6.12.0\n       for bug reports;"), "{text}");
    let warning = "[warn] huge pages: never\n       the cache lies in pages of 4 KiB";
    assert!(text.contains(warning), "{text}");
    assert!(text.contains("\n       to mend it: echo madvise | sudo tee"), "{text}");
    assert!(text.ends_with("8 ok, 1 to improve, 0 in the way\n"), "{text}");
}

#[test]
fn json_is_one_object_that_says_whether_something_fails() {
    let mut facts = good();
    facts.device = Err(io::ErrorKind::NotFound.into());
    let mut text = Vec::new();
    print(&judge(&facts), true, &mut text).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(report["failed"], true);
    let findings = report["findings"].as_array().unwrap();
    let last = findings.last().unwrap();
    assert_eq!((&last["topic"], &last["mark"]), (&"rights".into(), &"fail".into()));
    assert!(last["remedy"].as_str().unwrap().contains("modprobe"));
    assert!(findings[0].get("remedy").is_none());
}

#[test]
fn this_machine_can_be_judged() {
    let nothing = Arguments::default();
    let findings = judge(&read(&nothing));
    assert_eq!(findings.len(), judge(&good()).len());
}

#[test]
fn the_cache_that_is_judged_is_the_default_one() {
    let mut command = crate::cli::Arguments::command();
    let send = command.find_subcommand_mut("send").unwrap();
    let cache = send.get_arguments().find(|flag| flag.get_id() == "cache").unwrap();
    let default = cache.get_default_values()[0].to_str().unwrap();
    assert_eq!(default.parse(), Ok(CACHE));
}
