//! The judgement of `zferry doctor`: facts in, findings out.
//!
//! Pure, so that every bad machine can be shown to it. A finding says what is, what that means for
//! a transfer, and the command that mends it; a warning without consequence must not exist.

use std::io;

use sys::backend::WhyNot;
use sys::probe::{Congestion, HugePages, Memlock, Pipes, Reading, Support, Uring};

use super::asked::Elsewhere;
use super::finding::{Finding, Mark};
use super::grants::{self, Use};
use crate::error::Failure;
use crate::process::PIPE_BYTES;
use crate::units::Bytes;
use crate::zfs::ZfsError;
use crate::zfs::version::{Release, Version};

/// The `--cache` that a transfer has unless it is told otherwise.
pub(super) const CACHE: Bytes = Bytes(128 << 20);

/// All that is judged.
#[derive(Debug)]
pub struct Facts {
    /// What the kernel and the limits of this process allow.
    pub machine: sys::probe::Facts,
    /// The versions of the `zfs` command and its module.
    pub zfs: Result<Version, ZfsError>,
    /// Whether `/dev/zfs` opens for reading and writing.
    pub device: io::Result<()>,
    /// The datasets that are to be used, and what is granted there.
    pub uses: Vec<Use>,
    /// What jobs use on other hosts.
    pub elsewhere: Vec<Elsewhere>,
    /// Lists of what is to be used that could not be read: what each is of, and why.
    pub unread: Vec<(&'static str, Failure)>,
}

/// Judges all facts, in the order in which a person wants to read them.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    let mut findings = vec![
        kernel(&machine.kernel_release),
        rings(&machine.uring),
        memlock(&machine.memlock),
        pipes(&machine.pipes),
        huge_pages(&machine.huge_pages),
        cores(&machine.cores),
        congestion(&machine.congestion),
        zfs(&facts.zfs),
        rights(&facts.device, machine.account.user, facts.uses.is_empty()),
    ];
    let grants = |wanted: &Use| grants::judge(wanted, &machine.account);
    findings.extend(facts.uses.iter().map(grants));
    findings.extend(facts.elsewhere.iter().map(elsewhere));
    findings.extend(facts.unread.iter().map(|(topic, failure)| unread(topic, failure)));
    findings
}

/// Nothing is wrong with it as far as anybody knows here, and that is what must be said.
fn elsewhere(Elsewhere { duty, what, ask }: &Elsewhere) -> Finding {
    let fact = format!("{what} is on another host");
    Finding::ok(duty.topic(), fact, format!("not looked at, for only there it can be: {ask}"))
}

fn unread(topic: &'static str, failure: &Failure) -> Finding {
    let meaning = format!("what the {topic} need is unknown");
    let remedy = failure.remedy.clone().or_else(|| Some("mend that, and ask again".to_owned()));
    Finding::new(Mark::Fail, topic, failure.what.clone(), meaning, remedy)
}

fn kernel(release: &Reading<String>) -> Finding {
    match release {
        Ok(release) => Finding::ok(
            "kernel",
            format!("Linux {release}"),
            "for bug reports; what it can do is tried, not concluded from its version",
        ),
        Err(error) => Finding::unread("kernel", error, "a bug report would lack its version"),
    }
}

fn rings(uring: &Uring) -> Finding {
    const TOPIC: &str = "io_uring";
    if let Err(why) = &uring.usable {
        let meaning = "transfers use plain system calls instead (--io threads): more CPU time \
                       for each byte";
        return Finding::warn(TOPIC, why.to_string(), meaning, allow_rings(why));
    }
    let (operations, features) = match (&uring.operations, &uring.features) {
        (Ok(operations), Ok(features)) => (operations, features),
        (Err(error), _) | (_, Err(error)) => {
            let meaning = "transfers try each operation and do without those that are refused";
            let remedy = "allow io_uring_register where a seccomp filter forbids it";
            return Finding::warn(TOPIC, error.to_string(), meaning, remedy);
        }
    };
    let missing = |all: &[Support]| -> Vec<&str> {
        all.iter().filter(|support| !support.supported).map(|support| support.name).collect()
    };
    let without = missing(operations);
    if without.is_empty() {
        let lacks = match missing(features) {
            lacks if lacks.is_empty() => String::new(),
            lacks => format!("; without {}", lacks.join(", ")),
        };
        let fact = format!("works, with all {} operations{lacks}", operations.len());
        return Finding::ok(TOPIC, fact, "registered reads and zero-copy sends are possible");
    }
    Finding::warn(
        TOPIC,
        format!("works, without {}", without.join(", ")),
        "transfers use older operations in their place, at the price of a copy or a lookup",
        "run a kernel of 6.1 or newer",
    )
}

fn allow_rings(why: &WhyNot) -> String {
    let remedy = match why {
        WhyNot::Disabled(_) => {
            "sudo sysctl -w kernel.io_uring_disabled=0 (and to keep it: echo \
             kernel.io_uring_disabled=0 | sudo tee /etc/sysctl.d/60-zferry.conf)"
        }
        WhyNot::Forbidden => {
            "in a systemd unit: SystemCallFilter=@aio; for a container: a seccomp profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register (docker and podman: \
             --security-opt seccomp=PROFILE)"
        }
        WhyNot::Missing => "run a kernel that is built with CONFIG_IO_URING=y",
        WhyNot::NoMemory => "ulimit -l unlimited, or in a systemd unit: LimitMEMLOCK=infinity",
        WhyNot::Other(_) => "none is known; please report it with the lines above",
    };
    remedy.to_owned()
}

fn memlock(memlock: &Reading<Memlock>) -> Finding {
    const TOPIC: &str = "locked memory";
    let limit = match memlock {
        Ok(limit) => limit,
        Err(error) => {
            let consequence = "whether the cache can be registered shows when a transfer starts";
            return Finding::unread(TOPIC, error, consequence);
        }
    };
    let fact = match (limit.exempt, limit.soft) {
        (true, _) => "CAP_IPC_LOCK: no limit counts".to_owned(),
        (false, None) => "unlimited".to_owned(),
        (false, Some(bytes)) => format!("{} for all processes of this user", Bytes(bytes)),
    };
    if limit.permits(CACHE.0) {
        let meaning = format!("the usual cache of {CACHE} can be registered with the kernel");
        return Finding::ok(TOPIC, fact, meaning);
    }
    let kib = CACHE.0 / Bytes::KIB.0;
    let remedy = if limit.hard.is_none_or(|hard| hard >= CACHE.0) {
        format!("ulimit -l {kib}, or in a systemd unit: LimitMEMLOCK=infinity")
    } else {
        format!(
            "echo \"$(id -un) - memlock {kib}\" | sudo tee /etc/security/limits.d/zferry.conf, \
             then log in again; or in a systemd unit: LimitMEMLOCK=infinity"
        )
    };
    let meaning = format!(
        "less than the usual cache of {CACHE}: buffers are not registered, and reads and sends \
         look up their pages each time"
    );
    Finding::warn(TOPIC, fact, meaning, remedy)
}

fn pipes(pipes: &Pipes) -> Finding {
    const TOPIC: &str = "pipes";
    let granted = match &pipes.granted_bytes {
        Ok(granted) => Bytes::from(*granted),
        Err(error) => {
            let meaning = "streams come from zfs and go to it through pipes";
            let remedy = "close files, or raise their number: ulimit -n 65536";
            return Finding::fail(TOPIC, format!("none to be had: {error}"), meaning, remedy);
        }
    };
    if granted >= PIPE_BYTES {
        let meaning = "zfs send can run ahead while we are busy";
        return Finding::ok(TOPIC, format!("{granted} granted"), meaning);
    }
    let remedy = match (&pipes.max_bytes, &pipes.user_pages_soft) {
        (Ok(max), _) if *max < PIPE_BYTES.0 => {
            format!("sudo sysctl -w fs.pipe-max-size={}", PIPE_BYTES.0)
        }
        // The pages of all pipes of a user; 0 is no limit.
        (_, Ok(pages)) if *pages > 0 => format!(
            "close other pipes of this user, or: sudo sysctl -w fs.pipe-user-pages-soft={}",
            pages.saturating_mul(4)
        ),
        _ => "sudo sysctl -w fs.pipe-user-pages-soft=0".to_owned(),
    };
    let fact = format!("{granted} granted of {PIPE_BYTES}");
    Finding::warn(TOPIC, fact, "small pipes halve the speed of zfs send, or worse", remedy)
}

fn huge_pages(modes: &Reading<HugePages>) -> Finding {
    const TOPIC: &str = "huge pages";
    const REMEDY: &str = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
    let small = "the cache lies in pages of 4 KiB, whose lookups cost a few percent";
    match modes {
        Ok(HugePages::Always) => Finding::ok(TOPIC, "always", "the cache lies in huge pages"),
        Ok(HugePages::Madvise) => {
            Finding::ok(TOPIC, "where asked for", "we ask: the cache lies in huge pages")
        }
        Ok(HugePages::Never) => Finding::warn(TOPIC, "never", small, REMEDY),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let remedy = "run a kernel that is built with CONFIG_TRANSPARENT_HUGEPAGE=y";
            Finding::warn(TOPIC, "unknown to this kernel", small, remedy)
        }
        Err(error) => Finding::unread(TOPIC, error, "the cache may lie in pages of 4 KiB"),
    }
}

fn cores(cores: &Reading<Vec<usize>>) -> Finding {
    const TOPIC: &str = "cores";
    match cores {
        Ok(cores) if cores.len() > 1 => {
            let fact = format!("{} ({})", cores.len(), sys::cpu::ranges(cores));
            Finding::ok(TOPIC, fact, "one compression worker is pinned to each")
        }
        Ok(cores) => Finding::warn(
            TOPIC,
            format!("only {}", sys::cpu::ranges(cores)),
            "reading, compressing and sending take turns on it",
            "allow more: taskset -c 0-7 zferry, or in a systemd unit: CPUAffinity=0-7",
        ),
        Err(error) => Finding::warn(
            TOPIC,
            error.to_string(),
            "workers cannot be pinned without knowing where we may run",
            "name their number, and pin none: --workers 8 --pin off",
        ),
    }
}

fn congestion(congestion: &Congestion) -> Finding {
    const TOPIC: &str = "congestion control";
    let default = match &congestion.default {
        Ok(default) => default,
        Err(error) => return Finding::unread(TOPIC, error, "how sends are paced is unknown"),
    };
    if !default.starts_with("bbr") {
        return Finding::ok(TOPIC, default, "sends as fast as the network takes it");
    }
    let loaded = |name: &String| name == "cubic";
    let load = match &congestion.available {
        Ok(available) if available.iter().any(loaded) => "",
        _ => "sudo modprobe tcp_cubic && ",
    };
    Finding::warn(
        TOPIC,
        default,
        "paces what is sent: right for long and lossy ways, half the speed of cubic on a fast \
         local network",
        format!(
            "for a fast local network: {load}sudo sysctl -w net.ipv4.tcp_congestion_control=cubic"
        ),
    )
}

fn zfs(version: &Result<Version, ZfsError>) -> Finding {
    const TOPIC: &str = "zfs";
    let version = match version {
        Ok(version) => version,
        Err(error) => return no_zfs(error),
    };
    let Version { userland, kernel } = version;
    let Some(kernel) = kernel else {
        let fact = format!("command {userland}; its kernel module is not loaded");
        return Finding::fail(TOPIC, fact, "no pool of this host can be reached", LOAD_MODULE);
    };
    let fact = format!("command {userland}, kernel module {kernel}");
    if let Some((trouble, since)) = known_trouble(userland, kernel) {
        return Finding::warn(TOPIC, fact, trouble, format!("update OpenZFS to {since} or newer"));
    }
    if numbers(userland) != numbers(kernel) {
        return Finding::warn(
            TOPIC,
            fact,
            "the module's version decides what a stream may hold, and the command may ask it for \
             more",
            "sudo reboot, which loads the module that belongs to the command",
        );
    }
    Finding::ok(TOPIC, fact, "command and module belong together")
}

const LOAD_MODULE: &str = "sudo modprobe zfs";

fn no_zfs(error: &ZfsError) -> Finding {
    let meaning = "replicate and serve need it; send and receive carry any stream without it";
    let remedy = match error {
        ZfsError::NotFound { .. } => {
            "sudo apt install zfsutils-linux (Debian, Ubuntu) or sudo dnf install zfs (Fedora, \
             RHEL), or add its folder to PATH"
        }
        _ => "see what `zfs version` says, typed by this user",
    };
    Finding::fail("zfs", error.to_string(), meaning, remedy)
}

fn numbers(release: &Release) -> (u32, u32, u32) {
    (release.major, release.minor, release.patch)
}

/// The worst of the known errors of old versions that a transfer can meet, and where it is mended.
fn known_trouble(userland: &Release, kernel: &Release) -> Option<(&'static str, &'static str)> {
    if numbers(userland) < (2, 1, 8) {
        let hang = "zfs send and receive resize pipes that hold data, which can hang both for \
                    ever (openzfs#13232)";
        return Some((hang, "2.1.8"));
    }
    match numbers(kernel) {
        (2, 1, 0..12) | (..2, _, _) | (2, 0, _) => {
            Some(("raw streams with holes can arrive damaged (openzfs#11893)", "2.1.12"))
        }
        (2, 1, _) | (2, 2, 0..4) => Some((
            "streams of many small files have few points to resume at (openzfs#15927)",
            "2.2.4",
        )),
        _ => None,
    }
}

/// Whether this user may drive ZFS at all. What is granted on which dataset is another finding,
/// where one was named.
fn rights(device: &io::Result<()>, user: u32, none_named: bool) -> Finding {
    const TOPIC: &str = "rights";
    const MEANING: &str = "the zfs command cannot reach its kernel module";
    match device {
        Ok(()) if user == 0 => {
            Finding::ok(TOPIC, "root, and /dev/zfs opens", "all of ZFS may be used")
        }
        Ok(()) if !none_named => Finding::ok(
            TOPIC,
            format!("user {user}, and /dev/zfs opens"),
            "what was granted on each dataset is told below",
        ),
        Ok(()) => Finding::warn(
            TOPIC,
            format!("user {user}, and /dev/zfs opens"),
            "only what was granted on a dataset may be done there",
            format!(
                "have it checked: zferry doctor --source POOL/DATASET --target POOL/DATASET. To \
                 grant it, beside the local pool: sudo zfs allow -u \"$(id -un)\" {} POOL/DATASET; \
                 beside the backup pool: sudo zfs allow -u \"$(id -un)\" {} POOL/DATASET",
                grants::for_source(),
                grants::for_target(),
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::fail(
            TOPIC,
            "there is no /dev/zfs",
            MEANING,
            format!("{LOAD_MODULE}; in a container, start it with --device /dev/zfs"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::fail(
            TOPIC,
            format!("user {user} may not open /dev/zfs"),
            MEANING,
            "sudo chmod 666 /dev/zfs, which is what its udev rule does: the module itself checks \
             rights",
        ),
        Err(error) => Finding::fail(
            TOPIC,
            format!("/dev/zfs does not open: {error}"),
            MEANING,
            "see what `sudo dmesg` says of zfs",
        ),
    }
}
