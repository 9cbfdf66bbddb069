//! Two ends that talk in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::Error;
use sys::cipher::{Cipher, Decrypted};

use super::*;
use crate::trust::{Fingerprint, OwnKey};

/// One side as its key, and what it is told to do.
fn side(trusted: impl Trusted + 'static) -> (Agreement, Fingerprint) {
    let key = OwnKey::generate().unwrap();
    (Agreement::new(&key, Arc::new(trusted)).unwrap(), key.fingerprint())
}

/// Both ends after as much of a handshake as works: the client's, and the server's.
fn shake_hands(
    client: &Agreement,
    server: &Agreement,
) -> (Result<Session, Error>, Result<Session, Error>, Vec<u8>) {
    let (mut client, mut server) = (client.connect().unwrap(), server.accept().unwrap());
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    loop {
        let said = std::mem::take(&mut to_client);
        let left = match client.shake_hands(&mut said.as_slice(), &mut to_server) {
            Ok(stage) => stage,
            Err(error) => {
                let said = std::mem::take(&mut to_server);
                let told = server.shake_hands(&mut said.as_slice(), &mut to_client);
                return (Err(error), told.map(|_| server), to_client);
            }
        };
        let said = std::mem::take(&mut to_server);
        match server.shake_hands(&mut said.as_slice(), &mut to_client) {
            Ok(Stage::Done) if left == Stage::Done => return (Ok(client), Ok(server), to_client),
            Ok(_) => {}
            Err(error) => return (Ok(client), Err(error), to_client),
        }
    }
}

fn pair() -> (Session, Session) {
    let ((client, _), (server, _)) = (side(Anybody), side(Anybody));
    let (client, server, _) = shake_hands(&client, &server);
    (client.unwrap(), server.unwrap())
}

/// What `to` makes of what `from` says.
#[track_caller]
fn carry(from: &mut Session, to: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    from.encrypt(plain, &mut wire).unwrap();
    let mut came = vec![0; plain.len() + 1];
    let mut rest = wire.as_slice();
    let decrypted = to.decrypt(&mut rest, &mut came).unwrap();
    assert_eq!((rest.len(), decrypted), (0, Decrypted { bytes: plain.len(), ended: false }));
    came.truncate(decrypted.bytes);
    came
}

#[test]
fn each_end_learns_the_key_of_the_other_and_both_can_derive_what_nobody_else_can() {
    let ((client, client_key), (server, server_key)) = (side(Anybody), side(Anybody));
    let (ours, theirs, _) = shake_hands(&client, &server);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.peer(), theirs.peer()), (Some(server_key), Some(client_key)));
    let exported = *ours.export().unwrap().bytes();
    assert_eq!(&exported, theirs.export().unwrap().bytes());
    let (another, _, _) = shake_hands(&client, &server);
    assert_ne!(&exported, another.unwrap().export().unwrap().bytes());
}

#[test]
fn bytes_pass_in_both_directions_in_pieces_of_any_size() {
    let (mut client, mut server) = pair();
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for length in [0, 1, 100, 16_384, 16_385, bytes.len()] {
        assert!(carry(&mut client, &mut server, &bytes[..length]) == bytes[..length]);
        assert!(carry(&mut server, &mut client, &bytes[..length]) == bytes[..length]);
    }
}

#[test]
fn a_server_that_is_not_trusted_hears_nothing_but_that() {
    let (client, _) = side(Fingerprint::of(b"another server"));
    let (server, server_key) = side(Anybody);
    let (ours, theirs, _) = shake_hands(&client, &server);
    assert_eq!(untrusted(&ours.unwrap_err()), Some(server_key));
    let Err(Error::AlertReceived(alert)) = theirs else { panic!("{theirs:?}") };
    assert!(is_of_trust(alert));
}

#[test]
fn a_client_that_is_not_trusted_hears_so_with_the_first_bytes() {
    let (client, client_key) = side(Anybody);
    let (server, _) = side(Fingerprint::of(b"another client"));
    let (ours, theirs, to_client) = shake_hands(&client, &server);
    assert_eq!(untrusted(&theirs.unwrap_err()), Some(client_key));
    let error = ours.unwrap().decrypt(&mut to_client.as_slice(), &mut [0; 9]).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::AlertReceived(alert)) if is_of_trust(*alert)), "{error}");
}

/// Trusts whoever it is, until it is told otherwise.
#[derive(Clone, Debug, Default)]
struct Revocable(Arc<AtomicBool>);

impl Trusted for Revocable {
    fn trusts(&self, _peer: Fingerprint) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn trust_is_asked_for_in_every_handshake() {
    let trusted = Revocable::default();
    let ((client, _), (server, _)) = (side(Anybody), side(trusted.clone()));
    assert!(shake_hands(&client, &server).1.is_ok());
    trusted.0.store(true, Ordering::Relaxed);
    assert!(shake_hands(&client, &server).1.is_err());
}

#[test]
fn new_keys_in_the_middle_are_no_event() {
    let (mut client, mut server) = pair();
    for _ in 0..3 {
        client.renew_keys();
        assert_eq!(carry(&mut client, &mut server, b"under new keys"), b"under new keys");
        // An end that only ever hears answers nothing: a sender takes any answer for the end.
        let mut answer = Vec::new();
        server.encrypt(&[], &mut answer).unwrap();
        assert!(answer.is_empty());
    }
    assert_eq!(carry(&mut server, &mut client, b"and back"), b"and back");
}

#[test]
fn a_good_bye_is_told_from_a_silence() {
    let (mut client, mut server) = pair();
    let mut wire = Vec::new();
    client.encrypt(b"last words", &mut wire).unwrap();
    client.close(&mut wire);
    let mut plain = [0; 64];
    let heard = server.decrypt(&mut wire.as_slice(), &mut plain).unwrap();
    assert_eq!(heard, Decrypted { bytes: 10, ended: true });
    let silence = client.decrypt(&mut &[][..], &mut plain).unwrap();
    assert_eq!(silence, Decrypted { bytes: 0, ended: false });
}

#[test]
fn a_changed_byte_changes_nothing_of_what_is_heard() {
    for at in [0, 3, 5, 700, 16_000] {
        let (mut client, mut server) = pair();
        let mut wire = Vec::new();
        client.encrypt(&[7; 16_384], &mut wire).unwrap();
        wire[at] ^= 1;
        let mut plain = vec![0; 20_000];
        // The first byte of a record says nothing since TLS 1.3, and rustls does not look at it.
        match server.decrypt(&mut wire.as_slice(), &mut plain) {
            Ok(Decrypted { bytes: 0, .. }) | Err(_) => {}
            Ok(_) => assert!(at == 0 && plain[..16_384] == [7; 16_384], "byte {at}"),
        }
    }
}

#[test]
fn what_comes_behind_the_handshake_waits() {
    let ((client, _), (server, _)) = (side(Anybody), side(Anybody));
    let (mut client, mut server) = (client.connect().unwrap(), server.accept().unwrap());
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.shake_hands(&mut &[][..], &mut to_server).unwrap();
    server.shake_hands(&mut to_server.as_slice(), &mut to_client).unwrap();
    to_server.clear();
    let stage = client.shake_hands(&mut to_client.as_slice(), &mut to_server).unwrap();
    assert_eq!(stage, Stage::Done);
    client.encrypt(b"at once", &mut to_server).unwrap();
    let (mut rest, mut plain) = (to_server.as_slice(), [0; 9]);
    assert_eq!(server.shake_hands(&mut rest, &mut to_client).unwrap(), Stage::Done);
    server.take_in(rest).unwrap();
    let heard = server.decrypt(&mut &[][..], &mut plain).unwrap();
    assert_eq!((heard.bytes, &plain[..7]), (7, b"at once".as_slice()));
}
