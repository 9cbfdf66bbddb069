//! A TCP relay between a zferry client and its server that does harm by plan.
//!
//! Connections are cut, silenced, slowed down and damaged at bytes that a [`Plan`] names, so that a
//! run can be repeated: the same plan harms the same bytes. The relay reads the first 32 bytes of
//! each connection to know what it is for, and nothing else of what passes. What must never happen
//! here: that a byte is harmed which the plan does not name.
//!
//! And a [`Crowd`] of strangers that stand at a server's door.
//!
//! ```no_run
//! let plan = "lane:0#1 up 4096 cut rst\ncontrol down 300 hole-both 3s".parse().unwrap();
//! let proxy = zferry_chaos::Proxy::start("127.0.0.1:7001".parse().unwrap(), &plan).unwrap();
//! println!("connect to {}", proxy.address());
//! ```

mod counters;
mod course;
mod crowd;
mod delay;
mod opening;
mod plan;
mod proxy;
mod random;
mod relay;
mod text;
mod throttle;

pub use self::counters::{Counters, Traffic};
pub use self::crowd::{Crowd, Welcome};
pub use self::opening::Role;
pub use self::plan::{Ending, Fault, Plan, Rule, Way, Who};
pub use self::proxy::Proxy;
pub use self::random::{Random, Storm};
pub use self::text::PlanError;
