//! The lists of clients and servers, as somebody has edited them.

use zferry::trust::clients::Clients;
use zferry::trust::servers::Servers;

use crate::{Target, assert_fit_to_be_shown};

/// Many times the input: the text is parsed with all its places.
pub const TARGET: Target = Target { run, allocated_bytes_max: 16 << 20 };

fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Clients::parse(text) {
        Ok(clients) => {
            for client in clients.iter() {
                let found = clients.find(&client.fingerprint()).expect("it is in the list");
                assert_eq!(found.name(), client.name());
            }
        }
        Err(mistake) => check_words(&mistake.to_string()),
    }
    match Servers::parse(text) {
        Ok(servers) => {
            assert!(servers.iter().all(|(at, pin)| servers.pin(&at.to_string()) == Some(pin)));
        }
        Err(mistake) => check_words(&mistake.to_string()),
    }
}

/// Place and words of a mistake: 300 characters of them.
fn check_words(mistake: &str) {
    assert_fit_to_be_shown(mistake, 4 * 300 + 40);
}
