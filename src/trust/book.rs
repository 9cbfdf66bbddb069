//! The list of clients as a running server has it: read at the start, and again when told to.
//!
//! Asked on every thread, by whoever has a key to look up. What must never happen here: that a list
//! with a mistake takes the place of one without, so that a slip of the keyboard locks everybody
//! out, or that a client is remembered that the list does not name any more.

use std::sync::Arc;

use tokio::sync::watch;

use super::clients::Clients;
use super::fingerprint::Fingerprint;
use super::folder::Folder;
use super::grants::Client;
use crate::error::Failure;

/// Who may speak to a running server.
#[derive(Debug)]
pub struct Book {
    folder: Folder,
    now: watch::Sender<Arc<Clients>>,
}

impl Book {
    /// The list of a folder as it is now.
    pub fn open(folder: Folder) -> Result<Book, Failure> {
        let clients = folder.clients()?;
        Ok(Book { folder, now: watch::Sender::new(Arc::new(clients)) })
    }

    /// Reads the list again. If it has a mistake, the former stays in force, and the failure is for
    /// the log: whoever was to be revoked is not yet.
    pub fn reload(&self) -> Result<Arc<Clients>, Failure> {
        let clients = Arc::new(self.folder.clients()?);
        self.now.send_replace(Arc::clone(&clients));
        Ok(clients)
    }

    /// Whoever has this key. To be asked for each wish anew, so that what is taken back by a list
    /// that was read again is not granted any more.
    pub fn find(&self, key: &Fingerprint) -> Option<Arc<Client>> {
        self.clients().find(key)
    }

    /// The list that is in force.
    pub fn clients(&self) -> Arc<Clients> {
        Arc::clone(&self.now.borrow())
    }

    /// The list that is in force, and each that takes its place.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Clients>> {
        self.now.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::list;

    const KEY: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";

    #[test]
    fn a_list_that_is_read_again_counts_from_then_on_and_one_with_a_mistake_never() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        let (path, key) = (folder.clients_path(), KEY.parse().unwrap());
        let book = Book::open(folder).unwrap();
        let client = format!("[[client]]\nname = \"a\"\nfingerprint = \"{KEY}\"\n");
        list::replace(&path, &client).unwrap();
        assert!(book.find(&key).is_none(), "nobody has said that there is a new list");
        book.reload().unwrap();
        assert_eq!(book.find(&key).unwrap().name().as_str(), "a");
        list::replace(&path, "[[client]]\nname = \"a\"\n").unwrap();
        let failure = book.reload().unwrap_err();
        assert!(failure.what.contains("clients.toml:1:1: missing field `fingerprint`"));
        assert!(book.find(&key).is_some(), "the former list stays in force");
        list::replace(&path, "# nobody any more\n").unwrap();
        assert!(book.reload().unwrap().is_empty());
        assert!(book.find(&key).is_none());
    }

    #[test]
    fn a_server_does_not_start_with_a_list_that_has_a_mistake() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        list::replace(&folder.clients_path(), "clients = 5").unwrap();
        assert_eq!(Book::open(folder).unwrap_err().exit_code(), 3);
    }
}
