//! Strangers at a server's door: so many a minute, from many addresses, each with words of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::random::Random;

/// The first words of a real client, for a server to answer with all that a handshake costs.
const CLIENT_HELLO: &[u8] = include_bytes!("client-hello");

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than a server hears anybody out.
const STAYS_AT_MOST: Duration = Duration::from_secs(15);

/// Strangers that are to come. Each stays until it is sent away.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Where to: an address of loopback, which has as many sources as there are.
    pub to: SocketAddr,
    /// How many come each minute, at least 1.
    pub each_minute: u32,
    /// How many come in all.
    pub all: u32,
    /// The same seed makes the same words.
    pub seed: u64,
}

/// What became of them. Whoever was heard out without a word is in none but the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Welcome {
    /// How many came.
    pub came: u32,
    /// Whom the server has said something to.
    pub answered: u32,
    /// Whose connection was reset, or never made.
    pub turned_away: u32,
    /// Who has left before the server sent them away.
    pub left: u32,
}

#[derive(Clone, Copy)]
enum Fate {
    Answered,
    HeardOut,
    TurnedAway,
    Left,
}

impl Crowd {
    /// Has them come until all have, or `stop` says that it is enough; then waits for those that
    /// still stand there.
    pub async fn come(self, stop: impl Future<Output = ()>) -> Welcome {
        let mut stop = std::pin::pin!(stop);
        let mut next = tokio::time::interval(MINUTE / self.each_minute.max(1));
        let mut random = Random::new(self.seed);
        let (mut welcome, mut there) = (Welcome::default(), JoinSet::new());
        while welcome.came < self.all {
            tokio::select! {
                _ = next.tick() => {
                    welcome.came += 1;
                    let (from, said) = (source(&mut random), words(&mut random));
                    there.spawn(stand_there(self.to, from, said));
                }
                Some(Ok(fate)) = there.join_next() => welcome.count(fate),
                () = &mut stop => break,
            }
        }
        while let Some(Ok(fate)) = there.join_next().await {
            welcome.count(fate);
        }
        welcome
    }
}

impl Welcome {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Answered => self.answered += 1,
            Fate::HeardOut => {}
            Fate::TurnedAway => self.turned_away += 1,
            Fate::Left => self.left += 1,
        }
    }
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Welcome { came, answered, turned_away, left } = self;
        write!(f, "came={came} answered={answered} turned-away={turned_away} left={left}")
    }
}

/// Of each two strangers one comes from a place of its own, and one from where others came from.
fn source(random: &mut Random) -> IpAddr {
    let places = if random.below(2) == 0 { 1 << 16 } else { 16 };
    let [.., high, low] = random.below(places).to_be_bytes();
    Ipv4Addr::new(127, 7, high, low).into()
}

/// Nothing, noise, HTTP, zferry's first word and then noise, a whole TLS hello, or its beginning.
fn words(random: &mut Random) -> Vec<u8> {
    let some = usize::try_from(random.below(2000)).unwrap_or(0);
    let mut noise = |length: usize| -> Vec<u8> {
        (0..length).map(|_| random.number().to_le_bytes()[0]).collect()
    };
    match some % 6 {
        0 => Vec::new(),
        1 => noise(some),
        2 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        3 => [b"\x89zferry".as_slice(), &noise(some % 30)].concat(),
        4 => CLIENT_HELLO.to_vec(),
        _ => CLIENT_HELLO[..some % CLIENT_HELLO.len()].to_vec(),
    }
}

async fn stand_there(to: SocketAddr, from: IpAddr, said: Vec<u8>) -> Fate {
    let talk = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let mut stream = socket.connect(to).await?;
        stream.write_all(&said).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        Ok::<_, std::io::Error>(heard.is_empty())
    };
    match tokio::time::timeout(STAYS_AT_MOST, talk).await {
        Ok(Ok(true)) => Fate::HeardOut,
        Ok(Ok(false)) => Fate::Answered,
        Ok(Err(_)) => Fate::TurnedAway,
        Err(_elapsed) => Fate::Left,
    }
}
