//! The folder that a host's own key and its lists of others lie in.
//!
//! One folder for both sides: a host that sends and receives has one key. Nothing is made here but
//! the key, on its first use.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::clients::Clients;
use super::key::OwnKey;
use super::servers::Servers;
use crate::error::{Class, Failure, Side};
use crate::small_file;

/// Where key and lists lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// Root's, for the server that the system starts.
const OF_THE_HOST: &str = "/etc/zferry";

/// In a folder of a user's for settings.
const NAME: &str = "zferry";

impl Folder {
    /// A folder, whether it is there yet or not.
    pub fn at(path: impl Into<PathBuf>) -> Folder {
        Folder { path: path.into() }
    }

    /// The folder of whoever runs this: root's is the host's, a user has one of his own.
    pub fn usual(side: Side) -> Result<Folder, Failure> {
        let user = small_file::user().map_err(|error| {
            Failure::new(side, Class::Machine, format!("find out which user this is: {error}"))
        })?;
        let [settings, home] = ["XDG_CONFIG_HOME", "HOME"].map(std::env::var_os);
        usual_of(user, settings, home).map(Folder::at).ok_or_else(|| {
            let what = "there is no folder for the key: HOME is not set";
            Failure::new(side, Class::Usage, what).with_remedy("name one by --config DIR")
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this host's own key lies.
    pub fn key_path(&self) -> PathBuf {
        self.path.join("key.pem")
    }

    /// Where the list of clients lies.
    pub fn clients_path(&self) -> PathBuf {
        self.path.join("clients.toml")
    }

    /// Where the list of servers lies.
    pub fn servers_path(&self) -> PathBuf {
        self.path.join("servers.toml")
    }

    /// This host's own key, which is made where there is none.
    pub fn key(&self, side: Side) -> Result<OwnKey, Failure> {
        OwnKey::load_or_create(&self.key_path()).map_err(|error| error.on(side))
    }

    /// Who may send to this host.
    pub fn clients(&self) -> Result<Clients, Failure> {
        Clients::load(&self.clients_path()).map_err(|error| error.on(Side::Target))
    }

    /// Which servers this host knows.
    pub fn servers(&self) -> Result<Servers, Failure> {
        Servers::load(&self.servers_path()).map_err(|error| error.on(Side::Source))
    }
}

/// A relative path in the environment counts for nothing, as XDG has it.
fn usual_of(user: u32, settings: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    match user {
        0 => Some(OF_THE_HOST.into()),
        _ => settings
            .and_then(absolute)
            .or_else(|| home.and_then(absolute).map(|home| home.join(".config")))
            .map(|settings| settings.join(NAME)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_folder_of_the_host_and_a_user_one_of_his_own() {
        let usual = |user, settings: Option<&str>, home: Option<&str>| {
            usual_of(user, settings.map(Into::into), home.map(Into::into))
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(usual(0, Some("/x"), Some("/root")), path("/etc/zferry"));
        assert_eq!(usual(7, Some("/x"), Some("/home/a")), path("/x/zferry"));
        for settings in [None, Some(""), Some("x")] {
            assert_eq!(usual(7, settings, Some("/home/a")), path("/home/a/.config/zferry"));
        }
        assert_eq!(usual(7, None, Some("")), None);
        assert_eq!(usual(7, None, None), None);
    }

    #[test]
    fn a_new_folder_knows_nobody_and_gets_a_key() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path().join("zferry"));
        assert!(folder.clients().unwrap().is_empty());
        assert_eq!(folder.servers().unwrap(), Servers::default());
        assert!(!folder.path().exists(), "looking makes nothing");
        let key = folder.key(Side::Source).unwrap();
        assert_eq!(folder.key(Side::Target).unwrap().fingerprint(), key.fingerprint());
        assert!(folder.key_path().exists());
    }
}
