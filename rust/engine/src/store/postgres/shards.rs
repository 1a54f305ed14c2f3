//! Who has which shard: taking, handing over, and finding out after a connection was lost.

use std::collections::HashMap;

use tokio_postgres::Client;
use zeroize::Zeroizing;

use super::PostgresStore;
use super::address::Taking;
use super::link::{Attempt, Greeting};
use super::statements::{self, OLDEST, SCHEMA};
use crate::error::Error;
use crate::limits::{SHARDS, STORE_PATIENCE};
use crate::secret::Secret;
use crate::store::generation::LEAP;
use crate::store::sealed::{self, Nonces, Place, StoreId};
use crate::store::{Loss, Shard};

/// A shard that this engine holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    epoch: i64,
    /// Its commits, as far as they were acknowledged.
    version: i64,
    /// Commits that were not: the last one, or none.
    doubtful: i64,
    /// Another engine is to have it.
    wanted: bool,
}

#[cfg(test)]
impl Hold {
    pub(super) fn epoch(self) -> i64 {
        self.epoch
    }
}

/// Whose shards are taken, beside this instance's and those that lie ready for it.
#[derive(Clone, Copy, Default)]
pub(super) struct Whose {
    /// Whoever has them.
    pub(super) anyones: bool,
    /// Those that no engine has.
    pub(super) nobodys: bool,
    /// What an older instance of this engine has: one that crashed, or is to be replaced.
    pub(super) namesakes: bool,
}

/// FNV-1a of an account's name: where the account is, for whoever routes calls to engines.
pub(in crate::store) fn shard_of(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The upper half is the better mixed one.
    ((hash >> 32) % u64::from(SHARDS)) as u32
}

/// Whose an account is, in words.
pub(super) fn whose(name: &str, shard: &Shard) -> String {
    let Shard { number, engine, lost_from, version, .. } = shard;
    let text = if *lost_from != 0 {
        return format!(
            "account {name} is in shard {number}, whose server has {version} commits and had acknowledged {lost_from}: \
             go on with the server that has them, or give them up: interlane shards declare {number}"
        );
    } else if engine.is_empty() {
        format!("which no engine has: interlane shards take {number} --to ENGINE")
    } else {
        format!("which engine {engine} has: call there")
    };
    format!("account {name} is in shard {number}, {text}").replace(['\n', '\r'], " ")
}

/// For the first part of a statement's arguments: shards, epochs, versions.
pub(super) type Known = (Vec<i32>, Vec<i64>, Vec<i64>);

impl PostgresStore {
    /// Sees to a connection, and takes the shards that were held anew where it is a new one.
    pub(super) fn ready(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.link.is_up() {
            return Ok(());
        }
        self.connect()?;
        let held: Vec<u32> = self.held().collect();
        let epochs: Vec<i64> = self.epochs(&held);
        if let Err(error) = self.take(&held, Whose::default()) {
            self.link.give_up("the shards could not be taken");
            return Err(error);
        }
        for (shard, epoch) in held.into_iter().zip(epochs) {
            if self.holds[shard as usize].is_some_and(|hold| hold.epoch == epoch) {
                self.lose(shard, Loss::Moved);
            }
        }
        Ok(())
    }

    pub(super) fn connect(&mut self) -> Result<(), Error> {
        let Self { link, operator_key, store_id, .. } = self;
        let (shown, may_make) = (link.address.shown.clone(), link.address.taking != Taking::Nothing);
        link.connect(async |client, greeting| {
            let there = Meeting { shown, may_make, operator_key };
            *store_id = Some(there.meet(client, greeting, *store_id).await?);
            Ok(())
        })
    }

    /// The shards that are held.
    pub(super) fn held(&self) -> impl Iterator<Item = u32> + '_ {
        (0..SHARDS).filter(|&shard| self.holds[shard as usize].is_some())
    }

    fn epochs(&self, shards: &[u32]) -> Vec<i64> {
        shards.iter().filter_map(|&shard| Some(self.holds[shard as usize]?.epoch)).collect()
    }

    /// What is known of shards. Of one that is not held, nothing that is true of it on the server.
    pub(super) fn known(&self, shards: impl Iterator<Item = u32>) -> Known {
        let mut known = Known::default();
        for shard in shards {
            let hold = self.holds[shard as usize];
            known.0.push(shard as i32);
            known.1.push(hold.map_or(-1, |hold| hold.epoch));
            known.2.push(hold.map_or(-1, |hold| hold.version));
        }
        known
    }

    /// Takes shards that are this instance's, lie ready for this engine, or are to be had otherwise.
    pub(super) fn take(&mut self, shards: &[u32], whose: Whose) -> Result<(), Error> {
        if shards.is_empty() {
            return Ok(());
        }
        let shards: Vec<i32> = shards.iter().map(|&shard| shard as i32).collect();
        let (engine, instance) = (self.link.address.engine.clone(), self.instance);
        let Whose { anyones, nobodys, namesakes } = whose;
        let taken = self
            .link
            .ask(STORE_PATIENCE, async |up| {
                let statement = &up.statements.take;
                up.client.query(statement, &[&engine, &instance, &shards, &anyones, &nobodys, &namesakes]).await
            })
            .map_err(|trouble| self.explain(trouble))?;
        for row in taken {
            let (shard, epoch, version, wanted) = (
                self.field::<i32>(&row, 0)? as u32,
                self.field::<i64>(&row, 1)?,
                self.field::<i64>(&row, 2)?,
                self.field::<Option<String>>(&row, 3)?,
            );
            let at = shard as usize;
            if version < self.acknowledged[at] {
                self.went_back(shard, epoch);
                continue;
            }
            // Memory is what is stored, but for accounts that were found stale already, where nobody had it in between.
            let as_known = self.holds[at].is_some_and(|hold| {
                epoch == hold.epoch + 1 && (hold.version..=hold.version + hold.doubtful).contains(&version)
            });
            if !as_known {
                self.drop_accounts(shard, Loss::Stale);
            }
            self.acknowledged[at] = version;
            let wanted = wanted.is_some();
            self.drained[at] = false;
            self.holds[at] = Some(Hold { epoch, version, doubtful: 0, wanted });
        }
        Ok(())
    }

    /// The server has fewer commits than one had acknowledged: what went out since would go out twice.
    fn went_back(&mut self, shard: u32, epoch: i64) {
        self.lose(shard, Loss::Moved);
        let (number, acknowledged) = (shard as i32, self.acknowledged[shard as usize]);
        let noted = self.link.ask(STORE_PATIENCE, async |up| {
            up.client.execute(&up.statements.lost, &[&number, &epoch, &acknowledged]).await
        });
        // Where it could not be noted, it is found again when the shard is taken again.
        drop(noted);
    }

    /// Takes shards to declare that what is stored of them is the newest there is. Gives their accounts.
    pub(super) fn take_lost(&mut self, shards: &[u32], force: bool) -> Result<Vec<(u32, String)>, Error> {
        let shards: Vec<i32> = shards.iter().map(|&shard| shard as i32).collect();
        let instance = self.instance;
        let taken = self
            .link
            .ask(STORE_PATIENCE, async |up| up.client.query(statements::TAKE_LOST, &[&instance, &shards, &force]).await)
            .map_err(|trouble| self.explain(trouble))?;
        if taken.len() < shards.len() {
            return Err(Error::Busy("an engine has just taken one of the shards: call again, or stop it".into()));
        }
        for row in taken {
            let (shard, epoch, version) =
                (self.field::<i32>(&row, 0)? as u32, self.field::<i64>(&row, 1)?, self.field::<i64>(&row, 2)?);
            self.drop_accounts(shard, Loss::Stale);
            self.holds[shard as usize] = Some(Hold { epoch, version, doubtful: 0, wanted: false });
        }
        self.list(&shards)
    }

    /// What is stored of shards that were taken so is the newest there is. They wait for the engines that they are
    /// assigned to.
    pub(super) fn declare_taken(&mut self, shards: &[u32]) -> Result<(), Error> {
        let (numbers, epochs, versions) = self.known(shards.iter().copied());
        let leap = LEAP as i64;
        let declared = self
            .link
            .ask(STORE_PATIENCE, async |up| {
                up.client.query(statements::DECLARE, &[&numbers, &epochs, &versions, &leap]).await
            })
            .map_err(|trouble| self.explain(trouble))?;
        if declared.len() < shards.len() {
            return Err(Error::Busy("an engine took one of the shards meanwhile: declare them again".into()));
        }
        Ok(())
    }

    /// Finds out which of the shards that are held have gone to others, or are to go.
    pub(super) fn confirm_held(&mut self) -> Result<(), Error> {
        let (shards, epochs, _) = self.known(self.held());
        if shards.is_empty() {
            return Ok(());
        }
        let rows = self
            .link
            .ask(STORE_PATIENCE, async |up| up.client.query(&up.statements.confirm, &[&shards]).await)
            .map_err(|trouble| self.explain(trouble))?;
        let mut stored = HashMap::with_capacity(rows.len());
        for row in rows {
            let (epoch, holder) = (self.field::<i64>(&row, 1)?, self.field::<i64>(&row, 2)?);
            stored.insert(self.field::<i32>(&row, 0)?, (epoch, holder, self.field::<Option<String>>(&row, 3)?));
        }
        for (shard, epoch) in shards.into_iter().zip(epochs) {
            match (stored.get(&shard), &mut self.holds[shard as usize]) {
                (Some((stored, _, wanted)), Some(hold)) if *stored == epoch => hold.wanted |= wanted.is_some(),
                (Some((_, holder, _)), _) if *holder == self.instance => self.lose(shard as u32, Loss::Stale),
                _ => self.lose(shard as u32, Loss::Moved),
            }
        }
        self.hand_over()
    }

    /// Gives up the shards that other engines are to have, before anything is written to them again.
    pub(super) fn hand_over(&mut self) -> Result<(), Error> {
        let wanted: Vec<u32> =
            self.held().filter(|&shard| self.holds[shard as usize].is_some_and(|hold| hold.wanted)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (shards, epochs, _) = self.known(wanted.iter().copied());
        // First, so that nothing is written whatever becomes of the statement.
        for shard in wanted {
            self.lose(shard, Loss::Moved);
            self.drained[shard as usize] = true;
        }
        self.link
            .ask(STORE_PATIENCE, async |up| up.client.execute(&up.statements.hand_over, &[&shards, &epochs]).await)
            .map(drop)
            .map_err(|trouble| self.explain(trouble))
    }

    /// Leaves everything to whoever comes.
    pub(super) fn release(&mut self) {
        let held: Vec<u32> = self.held().collect();
        if held.is_empty() {
            return;
        }
        let (shards, epochs, _) = self.known(held.into_iter());
        let to_all = self.link.address.taking == Taking::Free;
        let released = self.link.ask(STORE_PATIENCE, async |up| {
            up.client.execute(&up.statements.release, &[&shards, &epochs, &to_all]).await
        });
        // Where it could not be done, the shards stay with this engine's name.
        drop(released);
    }

    /// A commit of this shard was acknowledged.
    pub(super) fn count_commit(&mut self, shard: u32, wanted: Option<&str>) {
        let at = shard as usize;
        if let Some(hold) = self.holds.get_mut(at).and_then(Option::as_mut) {
            hold.version += 1;
            hold.wanted |= wanted.is_some();
            self.acknowledged[at] = hold.version;
        }
    }

    /// A commit may be done or not: what it was about is to be read again.
    pub(super) fn doubt(&mut self, shards: impl Iterator<Item = u32>, accounts: impl IntoIterator<Item = u32>) {
        for shard in shards {
            if let Some(hold) = &mut self.holds[shard as usize] {
                hold.doubtful = 1;
            }
        }
        for account in accounts {
            self.accounts.remove(&account);
            self.lost.insert(account, Loss::Stale);
        }
    }

    /// Shards that a commit found in other hands, or in these with another epoch or version.
    pub(super) fn find_out(&mut self, shards: &[u32]) {
        if shards.is_empty() {
            return;
        }
        let instance = self.instance;
        let holders = self.link.ask(STORE_PATIENCE, async |up| {
            let rows = up.client.query(&up.statements.shards, &[]).await?;
            rows.iter()
                .map(|row| Ok((row.try_get::<_, i32>(0)?, row.try_get::<_, i64>(4)?)))
                .collect::<Result<Vec<_>, _>>()
        });
        let holders = holders.unwrap_or_default();
        for &shard in shards {
            let moved = holders.iter().any(|&(of, holder)| of == shard as i32 && holder != instance);
            self.lose(shard, if moved { Loss::Moved } else { Loss::Stale });
        }
    }

    /// A shard is not held any more.
    pub(super) fn lose(&mut self, shard: u32, loss: Loss) {
        self.holds[shard as usize] = None;
        self.drop_accounts(shard, loss);
    }

    fn drop_accounts(&mut self, shard: u32, loss: Loss) {
        let lost = &mut self.lost;
        self.accounts.retain(|&id, account| {
            if account.shard == shard {
                lost.insert(id, loss);
            }
            account.shard != shard
        });
    }
}

/// What is wanted of a server that was met.
struct Meeting<'a> {
    shown: String,
    /// Tables are made where there are none.
    may_make: bool,
    operator_key: &'a Secret<32>,
}

impl Meeting<'_> {
    /// Checks what is at the other end, or makes it.
    async fn meet(&self, client: &Client, greeting: Greeting, before: Option<StoreId>) -> Result<StoreId, Attempt> {
        let greeting = match greeting {
            Some(greeting) => greeting,
            None if before.is_some() => return Err(self.said("has lost our tables: restore it from a backup")),
            None if !self.may_make => {
                return Err(self.said("has no store of interlane's: open it with a gateway first"));
            }
            None => match make(client, self.operator_key).await {
                Ok(greeting) => greeting,
                // Another engine may have been quicker.
                Err(Attempt::Failed(why)) => match client.query_opt(statements::GREETING, &[]).await {
                    Ok(Some(row)) => (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
                    _ => {
                        return Err(
                            self.said(&format!("takes no tables of ours ({why}): see docs/operating-postgres.md"))
                        );
                    }
                },
                Err(said) => return Err(said),
            },
        };
        let (schema, id, proof) = greeting;
        if schema > SCHEMA {
            return Err(self.said(&format!("has schema {schema}, this interlane knows {SCHEMA}: update interlane")));
        }
        let id: StoreId = id
            .try_into()
            .ok()
            .filter(|_| schema >= OLDEST)
            .ok_or_else(|| self.said("is damaged: restore it from a backup"))?;
        if before.is_some_and(|before| before != id) {
            return Err(
                self.said("has another store than before: point the address at the one that this engine opened")
            );
        }
        sealed::open(self.operator_key, &id, Place::Proof, &proof, &mut Zeroizing::default()).map_err(|_| {
            self.said("was made with another operator key: give that one (nothing can be read without it)")
        })?;
        // Whoever may not make tables writes no rows either.
        if self.may_make && schema < SCHEMA {
            client.execute(statements::RAISE, &[&SCHEMA]).await?;
        }
        Ok(id)
    }

    fn said(&self, text: &str) -> Attempt {
        Attempt::Said(Error::Store(format!("{} {text}", self.shown)))
    }
}

/// Makes the tables, whole or not at all.
async fn make(client: &Client, operator_key: &Secret<32>) -> Result<(i32, Vec<u8>, Vec<u8>), Attempt> {
    let mut store_id = StoreId::default();
    sealed::random(&mut store_id).map_err(Attempt::Said)?;
    let nonce = Nonces::draw(1).and_then(|mut nonces| nonces.next()).map_err(Attempt::Said)?;
    let mut proof = Vec::new();
    sealed::seal(operator_key, &nonce, &store_id, Place::Proof, &[], &mut proof);
    let made = async {
        client.batch_execute("BEGIN").await?;
        client.batch_execute(statements::TABLES).await?;
        client.execute(statements::FIRST_ROW, &[&SCHEMA, &&store_id[..], &proof]).await?;
        client.execute(statements::FIRST_SHARDS, &[&(SHARDS as i32)]).await?;
        client.batch_execute("COMMIT").await
    };
    if let Err(error) = made.await {
        client.batch_execute("ROLLBACK").await?;
        return Err(error.into());
    }
    Ok((SCHEMA, store_id.to_vec(), proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_spread_over_the_shards_and_stay_there() {
        let mut accounts = vec![0; SHARDS as usize];
        for i in 0..64_000 {
            accounts[shard_of(&format!("{i}@acme.example")) as usize] += 1;
        }
        assert!(accounts.iter().all(|&count| (850..1_150).contains(&count)), "{accounts:?}");
        // In the tables of stores that exist.
        assert_eq!(["", "desk", "desk@acme.example"].map(shard_of), [36, 39, 1]);
    }
}
