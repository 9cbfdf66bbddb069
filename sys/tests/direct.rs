//! Files past the page cache, on a real disk and in memory; full disks and failing writes.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};
use sys::backend::{Backend, probe};
use sys::direct::{
    AlignedBuffer, BulkFile, DirectFile, Existing, PAGE_BYTES, PageIndex, PageWriter, Way, on_zfs,
    space,
};
use tempfile::TempDir;

/// A disk and a file system in memory: only the first knows what alignment is.
const PLACES: [&str; 2] = ["/var/tmp", "/dev/shm"];

fn on_each_place(fact: impl Fn(&Path)) {
    for place in PLACES {
        let directory = tempfile::tempdir_in(place).expect("temporary directory");
        fact(&directory.path().join("records"));
    }
}

fn page_of(byte: u8) -> AlignedBuffer {
    let mut page = AlignedBuffer::zeroed(1);
    page.fill(byte);
    page
}

#[test]
fn what_is_written_is_read_back_after_reopening() {
    on_each_place(|path| {
        let mut file = DirectFile::create(path, 64, Existing::Refuse).expect("create");
        file.write_at(&page_of(b'x'), PageIndex(63)).expect("write");
        drop(file);
        let file = DirectFile::open(path).expect("open");
        assert_eq!(file.pages(), 64);
        let mut all = AlignedBuffer::zeroed(64);
        file.read_at(&mut all, PageIndex(0)).expect("read");
        let (before, last) = all.split_at(63 * PAGE_BYTES);
        assert!(before.iter().all(|&byte| byte == 0) && last.iter().all(|&byte| byte == b'x'));
    });
}

#[test]
fn a_new_file_owns_its_blocks_and_never_grows() {
    on_each_place(|path| {
        let mut file = DirectFile::create(path, 67, Existing::Refuse).expect("create");
        let before = fs::metadata(path).expect("metadata");
        assert_eq!(before.len(), 67 * PAGE_BYTES as u64);
        assert!(before.blocks() * 512 >= before.len(), "blocks are missing");
        let beyond = file.write_at(&page_of(1), PageIndex(67)).expect_err("beyond the end");
        assert!(beyond.to_string().contains("page 67 of 67"), "{beyond}");
        let across = file.write_at(&AlignedBuffer::zeroed(2), PageIndex(66));
        assert!(across.is_err());
        assert!(file.read_at(&mut AlignedBuffer::zeroed(1), PageIndex(u64::MAX)).is_err());
        file.write_at(&page_of(1), PageIndex(66)).expect("a refused place retires nothing");
        assert_eq!(fs::metadata(path).expect("metadata").blocks(), before.blocks());
    });
}

/// The negative control: the kernel of this machine does refuse what the types cannot say.
#[test]
fn the_disk_refuses_an_unaligned_write_which_only_a_plain_file_can_express() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("temporary directory");
    let path = directory.path().join("records");
    let file = DirectFile::create(&path, 2, Existing::Refuse).expect("create");
    if !file.is_direct() {
        eprintln!("NOT CHECKED: /var/tmp has no O_DIRECT");
        return;
    }
    let plain = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path);
    let refused = plain.expect("open").write_at(&AlignedBuffer::zeroed(1)[1..], 0);
    assert_eq!(refused.expect_err("unaligned").raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_second_open_is_refused_and_says_why() {
    on_each_place(|path| {
        let first = DirectFile::create(path, 1, Existing::Refuse).expect("create");
        for again in [DirectFile::open(path), DirectFile::create(path, 1, Existing::Overwrite)] {
            let refused = again.expect_err("locked");
            assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
            let text = refused.to_string();
            assert!(text.contains("has it open") && text.contains("records"), "{text}");
        }
        assert_eq!(fs::metadata(path).expect("metadata").len(), PAGE_BYTES as u64);
        drop(first);
        DirectFile::open(path).expect("open once it is free");
    });
}

#[test]
fn a_file_that_exists_is_overwritten_only_when_asked() {
    on_each_place(|path| {
        let mut file = DirectFile::create(path, 2, Existing::Refuse).expect("create");
        file.write_at(&page_of(b'x'), PageIndex(0)).expect("write");
        drop(file);
        let refused = DirectFile::create(path, 2, Existing::Refuse).expect_err("exists");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        let file = DirectFile::create(path, 3, Existing::Overwrite).expect("overwrite");
        let mut all = AlignedBuffer::zeroed(3);
        file.read_at(&mut all, PageIndex(0)).expect("read");
        assert!(all.iter().all(|&byte| byte == 0));
    });
}

#[test]
fn a_directory_a_link_and_nothing_are_no_files() {
    on_each_place(|path| {
        assert_eq!(DirectFile::open(path).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        DirectFile::create(path, 1, Existing::Refuse).expect("create");
        let link = path.with_file_name("link");
        std::os::unix::fs::symlink(path, &link).expect("link");
        assert!(DirectFile::open(&link).is_err());
        assert!(DirectFile::open(Path::new("/dev/null")).is_err());
    });
}

#[test]
fn a_file_that_was_cut_while_being_made_opens_with_fewer_pages() {
    on_each_place(|path| {
        fs::write(path, vec![1; PAGE_BYTES + 100]).expect("write");
        let file = DirectFile::open(path).expect("open");
        assert_eq!(file.pages(), 1);
        fs::write(path.with_file_name("empty"), b"").expect("write");
        let empty = DirectFile::open(&path.with_file_name("empty")).expect("open");
        assert_eq!(empty.pages(), 0);
    });
}

/// ramfs knows neither `O_DIRECT` nor `fallocate`.
#[test]
fn a_file_system_without_o_direct_still_holds_records() {
    let Some(disk) = Disk::mount("ramfs", "mode=700") else {
        eprintln!("NOT CHECKED: no right to mount a disk");
        return;
    };
    let path = disk.0.path().join("records");
    let mut file = DirectFile::create(&path, 3, Existing::Refuse).expect("create");
    assert!(!file.is_direct());
    file.write_at(&page_of(b'x'), PageIndex(2)).expect("write");
    drop(file);
    let file = DirectFile::open(&path).expect("open");
    assert!(!file.is_direct());
    let mut page = page_of(0);
    file.read_at(&mut page, PageIndex(2)).expect("read");
    assert_eq!(*page, *page_of(b'x'));
}

#[test]
fn memory_is_not_zfs() {
    let directory = fs::File::open("/dev/shm").expect("open");
    assert!(!on_zfs(&directory).expect("statfs"));
}

/// A file system in memory, mounted until dropped; `None` without the right to mount.
struct Disk(TempDir);

impl Disk {
    fn mount(kind: &str, options: &str) -> Option<Disk> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, "zferry-test"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Disk(directory))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_at_once_and_leaves_nothing_behind() {
    let Some(disk) = Disk::mount("tmpfs", "size=64k") else {
        eprintln!("NOT CHECKED: no right to mount a small disk");
        return;
    };
    let path = disk.0.path().join("records");
    let full = DirectFile::create(&path, 64, Existing::Refuse).expect_err("256 KiB in 64 KiB");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    assert!(!path.exists());
    DirectFile::create(&path, 8, Existing::Refuse).expect("32 KiB in 64 KiB");
}

#[test]
fn pages_written_either_way_are_read_back_after_reopening() {
    for backend in [Backend::Uring, Backend::Threads] {
        if backend == Backend::Uring && probe().is_err() {
            eprintln!("NOT CHECKED: no io_uring here");
            continue;
        }
        on_each_place(|path| {
            let file = DirectFile::create(path, 64, Existing::Refuse).expect("create");
            let mut writer = PageWriter::new(file, backend).expect("writer");
            assert_eq!(writer.way() == Way::Call, backend == Backend::Threads);
            for at in [63, 0, 7, 63] {
                writer.page_mut().fill(b'a' + at);
                writer.write(PageIndex(at.into())).expect("write");
            }
            writer.write(PageIndex(64)).expect_err("beyond the end");
            writer.write(PageIndex(1)).expect("a refused place retires nothing");
            drop(writer);
            let mut all = AlignedBuffer::zeroed(64);
            DirectFile::open(path).expect("open").read_at(&mut all, PageIndex(0)).expect("read");
            let expected = |at: usize| match at {
                0 | 7 | 63 => b'a' + u8::try_from(at).unwrap(),
                1 => b'a' + 63,
                _ => 0,
            };
            for (at, page) in all.chunks(PAGE_BYTES).enumerate() {
                assert!(page.iter().all(|&byte| byte == expected(at)), "page {at}");
            }
        });
    }
}

/// Limits are of the process, so the fact is checked in one of its own.
#[test]
fn a_failed_write_retires_the_file_for_good() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("temporary directory");
    let path = directory.path().join("records");
    drop(DirectFile::create(&path, 2, Existing::Refuse).expect("create"));
    // Its words come through a pipe: the limit would hit our own output where that is a file.
    let limited = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "with_a_file_size_limit", "--ignored"])
        .env("ZFERRY_TEST_FILE", &path)
        .output()
        .expect("run");
    assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stdout));
    DirectFile::open(&path).expect("open").read_at(&mut page_of(0), PageIndex(1)).expect("read");
}

#[test]
#[ignore = "run by a_failed_write_retires_the_file_for_good"]
fn with_a_file_size_limit() {
    let path = PathBuf::from(std::env::var_os("ZFERRY_TEST_FILE").expect("path"));
    over_the_limit_through(Backend::Uring, &path);
    over_the_limit_through(Backend::Threads, &path);
    let mut file = DirectFile::open(&path).expect("open");
    // SAFETY: to ignore a signal installs no handler that could run anywhere.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignore");
    let limit = PAGE_BYTES as u64;
    setrlimit(Resource::RLIMIT_FSIZE, limit, limit * 2).expect("limit");
    let failed = file.write_at(&page_of(1), PageIndex(1)).expect_err("over the limit");
    assert_eq!(failed.kind(), io::ErrorKind::FileTooLarge, "{failed}");
    setrlimit(Resource::RLIMIT_FSIZE, limit * 2, limit * 2).expect("limit");
    let retired = file.write_at(&page_of(1), PageIndex(1)).expect_err("retired");
    assert!(retired.to_string().contains("an earlier write failed"), "{retired}");
    file.read_at(&mut page_of(0), PageIndex(0)).expect("reading goes on");
}

/// The first page can be written, the second cannot, and after that the first cannot either.
fn over_the_limit_through(backend: Backend, path: &Path) {
    if backend == Backend::Uring && probe().is_err() {
        eprintln!("NOT CHECKED: no io_uring here");
        return;
    }
    let file = DirectFile::open(path).expect("open");
    let mut writer = PageWriter::new(file, backend).expect("writer");
    // SAFETY: to ignore a signal installs no handler that could run anywhere.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignore");
    let limit = PAGE_BYTES as u64;
    setrlimit(Resource::RLIMIT_FSIZE, limit, limit * 2).expect("limit");
    writer.write(PageIndex(0)).expect("within the limit");
    let failed = writer.write(PageIndex(1)).expect_err("over the limit");
    assert_eq!(failed.kind(), io::ErrorKind::FileTooLarge, "{failed}");
    setrlimit(Resource::RLIMIT_FSIZE, limit * 2, limit * 2).expect("limit");
    let retired = writer.write(PageIndex(0)).expect_err("retired");
    assert!(retired.to_string().contains("an earlier write failed"), "{retired}");
    drop(writer);
    // A page of which the kernel takes a sector and no more was not written.
    let file = DirectFile::open(path).expect("open");
    let mut writer = PageWriter::new(file, backend).expect("writer");
    setrlimit(Resource::RLIMIT_FSIZE, limit + 512, limit * 2).expect("limit");
    writer.write(PageIndex(1)).expect_err("cut in the middle");
    setrlimit(Resource::RLIMIT_FSIZE, limit * 2, limit * 2).expect("limit");
}

#[test]
fn a_bulk_file_owns_its_blocks_and_takes_no_name_that_is_taken() {
    on_each_place(|path| {
        let file = BulkFile::create(path, 1 << 20).expect("create");
        let metadata = fs::metadata(path).expect("metadata");
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (1 << 20, 0o600));
        assert!(metadata.blocks() * 512 >= 1 << 20, "blocks are missing");
        let taken = BulkFile::create(path, 1 << 20).expect_err("the name is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        let opened = BulkFile::open(path, file.is_direct()).expect("open");
        let mut page = AlignedBuffer::zeroed(1);
        page.fill(1);
        fs::File::from(opened.try_clone().expect("clone"))
            .read_exact_at(&mut page, 0)
            .expect("read");
        assert!(page.iter().all(|&byte| byte == 0));
    });
}

#[test]
fn a_bulk_file_that_has_no_room_leaves_nothing() {
    // A disk of its own: until it is refused, it has all the room that others may want.
    let Some(disk) = Disk::mount("tmpfs", "size=64k") else {
        eprintln!("NOT CHECKED: no right to mount a small disk");
        return;
    };
    let room = space(disk.0.path()).expect("space");
    assert!(room.available <= room.total && room.total == 64 << 10);
    let path = disk.0.path().join("bulk");
    BulkFile::create(&path, room.total * 2).expect_err("larger than the disk");
    assert!(!path.exists());
}
