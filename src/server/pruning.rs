//! Prunes a dataset for a client: by what it wishes, and never below what its grant keeps.
//!
//! Drives `zfs`, and so it blocks. The client is believed in nothing but its wish: what is there,
//! what is held and what time it is are seen here.

use super::wished::Wished;
use crate::error::{Class, Failure, Side};
use crate::protocol::prune::Prune as Wish;
use crate::retention::{Far, Floor, Report};
use crate::zfs::prune::Prune;

impl Wished {
    /// Prunes the dataset, or says what would go.
    pub fn prune(&self, wish: &Wish) -> Result<Report, Failure> {
        let way = self.way()?;
        if !way.exists {
            let what = format!("{} does not exist, so there is nothing to prune", self.dataset);
            return Err(Failure::new(Side::Target, Class::Refused, what));
        }
        let (rules, floor) = (wish.rules(), self.floor()?);
        let prune = Prune {
            rules: &rules,
            far: Far::Holds(wish.newest_common),
            floor: floor.as_ref(),
            dry_run: wish.dry_run,
        };
        let pruned = self.pool.zfs.prune(Side::Target, &self.dataset, &prune);
        pruned.map(|pruned| pruned.report).map_err(|error| error.on(Side::Target))
    }

    /// What must stay; `None` where whoever has started this server asks.
    fn floor(&self) -> Result<Option<Floor>, Failure> {
        let Some(leave) = &self.leave else { return Ok(None) };
        let rules = leave.keep().cloned().ok_or_else(|| {
            let what = format!("no grant says what stays of {}", self.dataset);
            Failure::new(Side::Target, Class::Refused, what)
        })?;
        Ok(Some(Floor { rules, now: jiff::Timestamp::now() }))
    }
}
