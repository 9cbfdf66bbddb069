//! A resident server and clients that know each other by their keys: who may do what, and for how
//! long.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
};
use zferry::trust::OwnKey;

use crate::support::host::{Running, Server, wait_for, wait_for_words, zferry};
use crate::support::scene::{Host, Scene};

#[test]
fn a_client_that_is_trusted_copies_below_its_root_and_nowhere_else() {
    let scene = Scene::new(&[]);
    scene.replicate("a", &["--connections", "2"]).ended().succeeded();
    scene.source.pools.snapshot("tank/a", "two", &vec![2; 100_000]);
    scene.replicate("a", &[]).ended().succeeded();
    let arrived = scene.target.pools.snapshots("backup/in/a");
    assert_eq!(arrived, scene.source.pools.snapshots("tank/a"));
    scene.replicate("deep/er/a", &[]).ended().succeeded();
    assert!(scene.target.pools.exists("backup/in/deep/er/a"));
    for outside in ["../other/a", "..", "a/../../other"] {
        let refused = scene.replicate(outside, &[]).ended();
        assert_ne!(refused.code(), 0, "{outside}");
    }
    assert_eq!(scene.target.pools.snapshots("backup/other"), Vec::<String>::new());
}

#[test]
fn a_client_whose_key_nobody_knows_is_refused_and_told_what_to_do() {
    let scene = Scene::new(&[]);
    let stranger = Host::source();
    stranger.trusts(scene.server.address, &scene.target.key());
    let refused = stranger.replicate(scene.server.address, "a", &[]).ended();
    refused.failed_with(2, &["does not trust our key", "zferry keys trust client"]);
    wait_for_words(&scene.server.running, &stranger.key());
    assert!(!scene.target.pools.exists("backup/in/a"));
}

#[test]
fn a_server_whose_key_nobody_knows_is_not_spoken_to() {
    let scene = Scene::new(&[]);
    let newcomer = Host::source();
    let refused = newcomer.replicate(scene.server.address, "a", &[]).ended();
    refused.failed_with(2, &["is not known here", "zferry keys trust server"]);
}

/// Somebody in between who has a key of their own, and passes on what they can.
#[test]
fn a_man_in_the_middle_is_found_out() {
    let scene = Scene::new(&[]);
    let (middle, elsewhere) = (Host::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    middle.pools.dataset("backup/in", "filesystem");
    let words = ["keys", "trust", "client", "victim", &scene.source.key(), "--root", "backup/in"];
    middle.run(&words).succeeded();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--cache", "16MiB"];
    let evil = Server::start(&mut middle.command(&serve));
    // The client takes this address for the server's.
    let address = elsewhere.local_addr().unwrap();
    scene.source.trusts(address, &scene.target.key());
    pass_on(elsewhere, evil.address);
    let refused = scene.source.replicate(address, "a", &[]).ended();
    refused.failed_with(2, &["somebody may sit in between", &middle.key()]);
    assert!(!middle.pools.exists("backup/in/a"));
}

fn pass_on(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(to).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server.try_clone().unwrap(), client.try_clone().unwrap()),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

#[test]
fn what_is_not_granted_is_not_done_and_the_line_that_would_grant_it_is_named() {
    let scene = Scene::new(&["--allow", "receive-incremental"]);
    let refused = scene.replicate("a", &[]).ended();
    refused.failed_with(2, &["laptop", "receive-full"]);
    assert!(!scene.target.pools.exists("backup/in/a"));
    let scene = Scene::new(&["--allow", "receive-full"]);
    let refused = scene.replicate("not/there/a", &[]).ended();
    refused.failed_with(2, &["create-parents"]);
    assert!(!scene.target.pools.exists("backup/in/not"));
    let scene = Scene::new(&["--raw-only"]);
    scene.replicate("a", &[]).ended().failed_with(2, &["raw"]);
}

#[test]
fn a_root_that_is_another_dataset_by_now_is_not_written_to() {
    let scene = Scene::new(&[]);
    scene.target.pools.becomes_another("backup/in");
    let refused = scene.replicate("a", &[]).ended();
    refused.failed_with(2, &["backup/in", "7919"]);
    assert!(!scene.target.pools.exists("backup/in/a"));
}

#[test]
fn a_second_transfer_to_a_dataset_is_told_who_is_there_already() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    let first = scene.replicate("a", &[]);
    wait_for("the first", || scene.target.pools.exists("backup/in/a").then_some(()));
    let second = scene.replicate("a", &[]).ended();
    second.failed_with(4, &["is being received from laptop (127.0.0.1:", "since"]);
    drop(first);
}

#[test]
fn a_client_that_is_revoked_is_turned_out_at_once_and_not_let_in_again() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    let under_way = scene.replicate("a", &[]);
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    scene.target.run(&["keys", "revoke", "client", "laptop"]).succeeded();
    scene.reads_the_list_again();
    under_way.ended().failed_with(2, &["was revoked"]);
    scene.replicate("b", &[]).ended().failed_with(2, &["does not trust our key"]);
}

#[test]
fn a_list_with_a_mistake_locks_nobody_out() {
    let scene = Scene::new(&[]);
    let list = scene.target.folder.path().join("clients.toml");
    let before = fs::read_to_string(&list).unwrap();
    fs::write(&list, before.replace("name", "nmae")).unwrap();
    scene.server.running.signal("HUP");
    wait_for_words(&scene.server.running, "the former list of clients stays");
    scene.replicate("a", &[]).ended().succeeded();
}

#[test]
fn a_server_with_keys_speaks_to_nobody_in_clear() {
    let scene = Scene::new(&[]);
    let refused = scene.replicate("a", &["--plain", "--connect-timeout", "2"]).ended();
    assert_ne!(refused.code(), 0);
    assert!(!scene.target.pools.exists("backup/in/a"));
    let plain = ["serve", "--listen", "127.0.0.1:0", "--plain"];
    Running::start(&mut zferry(&plain)).ended().failed_with(3, &["--root"]);
    let rooted = ["serve", "--listen", "127.0.0.1:0", "--root", "backup"];
    Running::start(&mut zferry(&rooted)).ended().failed_with(3, &["--plain"]);
}

#[test]
fn the_secret_of_a_session_is_in_no_command_line_environment_or_log() {
    // What is kept for a process that takes the session over has the secret in it.
    let spool = tempfile::tempdir_in("/var/tmp").unwrap();
    let scene = Scene::serving(&[], &["-vvv", "--spool", spool.path().to_str().unwrap()]);
    scene.slow_source();
    let client = scene.replicate("a", &["-vvv"]);
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    let secret = wait_for("the secret", || secret_in(&spool.path().join("transfers")));
    assert_eq!(secret.len(), 32, "{secret}");
    let key = fs::read_to_string(scene.source.folder.path().join("key.pem")).unwrap();
    let private = key.lines().nth(1).unwrap();
    let server = &scene.server.running;
    wait_for_words(&client, "TRACE");
    wait_for_words(server, "TRACE");
    for text in [client.said(), server.said(), of_process(client.pid()), of_process(server.pid())] {
        assert!(!text.is_empty() && !text.contains(private), "{text}");
        // In whatever form it would be printed.
        let text = text.to_lowercase();
        for form in [secret.clone(), as_list(&secret)] {
            assert!(!text.contains(&form), "{text}");
        }
    }
}

/// The secret of the session whose stream is kept in a folder.
fn secret_in(folder: &Path) -> Option<String> {
    let mut entries = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let file = entries.find(|path| path.extension().is_some_and(|end| end == "session"))?;
    let session: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some(session["secret"].as_str()?.to_lowercase())
}

/// As `Debug` prints the bytes that stand in hex: `1, 171`.
fn as_list(hex: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap().to_string();
    (0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>().join(", ")
}

fn of_process(pid: u32) -> String {
    let folder = Path::new("/proc").join(pid.to_string());
    let words = ["cmdline", "environ"].map(|name| fs::read(folder.join(name)).unwrap());
    String::from_utf8_lossy(&words.concat()).into_owned()
}

#[test]
fn an_older_tls_is_refused_for_its_age() {
    let scene = Scene::new(&[]);
    let address = scene.server.address.to_string();
    for (version, words) in [("-tls1_2", "alert protocol version"), ("-tls1_3", "alert")] {
        let mut client = std::process::Command::new("openssl");
        client.args(["s_client", "-connect", &address, version]).stdin(Stdio::null());
        let ended = client.output().expect("openssl is installed");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(words), "{version}: {said}");
        let is_of_age = said.contains("alert protocol version");
        assert_eq!(is_of_age, version == "-tls1_2", "1.3 is refused for something else: {said}");
    }
}

/// Whoever stole what a client had in memory could go on with its session, and early data could be
/// said twice by somebody on the way.
#[test]
fn no_session_of_tls_can_be_resumed_and_nothing_is_taken_early() {
    let scene = Scene::new(&[]);
    let key = OwnKey::load(&scene.source.folder.path().join("key.pem")).unwrap();
    let config = Arc::new(willing(&key));
    for _ in 0..2 {
        let name = ServerName::try_from("zferry.invalid").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        assert!(client.early_data().is_none(), "the server has allowed it");
        let mut socket = TcpStream::connect(scene.server.address).unwrap();
        client.writer().write_all(&[0; 64]).unwrap();
        // This is no preamble: the server closes, behind all that it has to say.
        while let Ok((1.., _) | (_, 1..)) = client.complete_io(&mut socket) {}
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
    wait_for_words(&scene.server.running, "refused a connection");
}

/// A client that takes any server, would resume its sessions, and say something early.
fn willing(key: &OwnKey) -> ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()));
    let private = provider.key_provider.load_private_key(private).unwrap();
    let public = CertificateDer::from(key.public().to_vec());
    let certified = Arc::new(CertifiedKey::new(vec![public], private));
    let verifier = Arc::new(AnyServer(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    config.alpn_protocols = vec![b"zferry/1".to_vec()];
    config
}

#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only 1.3 is offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
