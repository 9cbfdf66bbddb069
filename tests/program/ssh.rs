//! Targets on hosts that only ssh knows: a real sshd on loopback, and a stand-in on either side.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::support::executable;
use crate::support::far::Far;
use crate::support::host::{Running, wait_for, zferry_on};
use crate::support::stand_in::{Failing, StandIn};

fn source() -> StandIn {
    let here = StandIn::new();
    here.dataset("tank/a", "filesystem");
    here.snapshot("tank/a", "one", &vec![1; 300_000]);
    here
}

#[test]
fn a_dataset_is_copied_to_a_host_that_has_only_ssh_and_zferry() {
    let (here, far) = (source(), Far::start());
    far.copy(&here, "backup/a", &[]).succeeded();
    here.snapshot("tank/a", "two", &vec![2; 100_000]);
    far.copy(&here, "backup/a", &["--connections", "3"]).succeeded();
    let again = far.copy(&here, "backup/a", &[]).succeeded();
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing to do"));
    assert_eq!(far.host.snapshots("backup/a"), here.snapshots("tank/a"));
    far.is_left_alone();
}

#[test]
fn the_data_go_through_ssh_where_that_is_wished() {
    let (here, far) = (source(), Far::start());
    far.copy(&here, "backup/a", &["--via-ssh", "--connections", "2"]).succeeded();
    assert_eq!(far.host.snapshots("backup/a"), here.snapshots("tank/a"));
}

#[test]
fn the_other_host_listens_on_the_ports_that_are_given() {
    let (here, far) = (source(), Far::start());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = far.copy(&here, "backup/a", &["--ports", &port]);
    refused.failed_with(2, &["did not start", "--via-ssh"]);
    drop(taken);
    far.copy(&here, "backup/a", &["--ports", &port]).succeeded();
}

#[test]
fn what_is_wrong_with_the_other_host_is_said() {
    let (here, mut far) = (source(), Far::start());
    let nowhere = far.copy(&here, "backup/a", &["--far-command", "no-such-zferry"]);
    nowhere.failed_with(2, &["there is no zferry on", "--far-command"]);
    let other = far.copy(&here, "backup/a", &["--far-command", "echo hello; true"]);
    other.failed_with(2, &["did not start"]);
    let mistake = far.copy(&here, "nopool/a", &[]);
    assert_eq!(mistake.code(), 2);
    far.stop();
    far.copy(&here, "backup/a", &[]).failed_with(2, &["no connection by ssh", "true"]);
}

#[test]
fn a_copy_goes_on_when_the_ssh_that_has_begun_it_is_gone() {
    let (here, far) = (source(), Far::start());
    here.snapshot("tank/a", "two", &vec![2; 300_000]);
    here.slow_send(50_000, Duration::from_millis(100));
    let copy = far.copying(&here, "backup/a", &["--block-size", "16KiB", "-v"]);
    let part = || far.host.partly_received("backup/a").filter(|part| part.len() > 50_000);
    wait_for("a part of the stream", part);
    let ssh = far.sshs("attend").pop().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-9", &ssh]).status().unwrap().success());
    copy.ended().succeeded();
    assert_eq!(far.host.snapshots("backup/a"), here.snapshots("tank/a"));
    far.is_left_alone();
}

/// As words that its receiver was started with, and as threads that it has.
#[test]
fn the_receiver_there_works_as_it_is_told() {
    let (here, far) = (source(), Far::start());
    here.slow_send(10_000, Duration::from_millis(100));
    let flags = ["--cache", "16MiB", "--far-workers", "1", "--far-io", "threads"];
    let mut copy = far.copying(&here, "backup/a", &flags);
    let words = wait_for("the receiver", || {
        far.left().into_iter().find(|words| words.contains("zferry attend"))
    });
    for flag in ["--cache=16777216", "--workers=1", "--io=threads", "--grace=0ms"] {
        assert!(words.contains(flag), "{flag} is not in: {words}");
    }
    assert!(copy.is_running());
    here.slow_send(1 << 20, Duration::ZERO);
    copy.ended().succeeded();
}

/// Another session cannot be had by the same ticket: to wait for it would be in vain.
#[test]
fn a_copy_that_the_other_host_gives_up_is_not_waited_for() {
    let (here, far) = (source(), Far::start());
    let words = "cannot receive new filesystem stream: out of space";
    far.host.fail_receive(&Failing { after_bytes: 100_000, status: "1", words });
    let copy = far.copy(&here, "backup/a", &["--retry-for", "1h"]);
    copy.failed_with(2, &["out of space"]);
}

#[test]
fn no_ssh_is_started_where_a_flag_is_wrong() {
    let here = source();
    let (ssh, trace) = (here.bin().join("ssh"), here.bin().join("started"));
    executable::script(&format!("#!/bin/sh\ntouch {}\n", trace.display()), &ssh);
    for flags in [["--bwlimit", "@/nowhere"], ["--pin", "9999"], ["--block-size", "1"]] {
        for ends in [["tank/a", "h:backup/a"], ["h:tank/a", "backup/a"]] {
            let mut command = zferry_on(&here, &["replicate"]);
            Running::start(command.args(ends).args(flags)).ended().failed_with(3, &[]);
            assert!(!trace.exists(), "{ends:?} {flags:?}");
        }
    }
    let mut command = zferry_on(&here, &["replicate", "tank/a", "h:backup/a"]);
    Running::start(&mut command).ended().failed_with(2, &["did not start"]);
    assert!(trace.exists());
}

#[test]
fn flags_that_have_nothing_to_say_are_refused() {
    let here = source();
    let copy = |to: &str, flags: &[&str]| {
        let mut command = zferry_on(&here, &["replicate", "tank/a", to]);
        Running::start(command.args(flags)).ended()
    };
    copy("h:backup/a", &["--plain"]).failed_with(3, &["with ssh there is a ticket"]);
    copy("h:backup/a", &["--via-ssh", "--bwlimit", "1MiB"]).failed_with(3, &["--via-ssh"]);
    copy("h:backup/a", &["--lane", "splice", "--checksum", "none"])
        .failed_with(3, &["cannot be encrypted", "with ssh everything is encrypted"]);
    for flags in [["--ssh-port", "22"], ["--far-command", "zferry"], ["--far-workers", "2"]] {
        for to in ["backup/a", "zferry://h/a"] {
            copy(to, &flags).failed_with(3, &["does not go by ssh", "leave out the flags for ssh"]);
        }
    }
    copy("backup/a", &["--via-ssh"]).failed_with(3, &["does not go by ssh"]);
    copy("backup/a", &["--plain"]).failed_with(3, &["the target is on this host"]);
    copy("h:backup", &[]).failed_with(3, &["is a whole pool"]);
    copy("-oProxyCommand=x:backup/a", &[]).failed_with(3, &[]);
}
