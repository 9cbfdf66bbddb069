//! Connections of which both ends know each other from the start.

use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};

use sys::cipher::Conduit;
use zferry::tls::{Agreement, Anybody, Stage};
use zferry::trust::OwnKey;

/// Two ends that have shaken hands already.
pub fn enciphered(ours: OwnedFd, theirs: OwnedFd) -> (Conduit, Conduit) {
    static AGREEMENT: LazyLock<Agreement> =
        LazyLock::new(|| Agreement::new(&OwnKey::generate().unwrap(), Arc::new(Anybody)).unwrap());
    let (mut client, mut server) = (AGREEMENT.connect().unwrap(), AGREEMENT.accept().unwrap());
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    loop {
        let mut said = std::mem::take(&mut to_client);
        let client = client.shake_hands(&mut said.as_slice(), &mut to_server).unwrap();
        said = std::mem::take(&mut to_server);
        let server = server.shake_hands(&mut said.as_slice(), &mut to_client).unwrap();
        if (client, server) == (Stage::Done, Stage::Done) {
            break;
        }
    }
    (Conduit::enciphered(ours, Box::new(client)), Conduit::enciphered(theirs, Box::new(server)))
}
