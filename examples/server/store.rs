//! Users in memory: what outlives the requests that made it.

use std::collections::BTreeMap;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::sample::{self, PAGE, Profile, SEEDED_USERS, VARIANTS};

/// Created users that the store keeps. The oldest one goes when one more comes, so that memory says something
/// about the allocator and not about how many requests it served.
pub const KEPT_CREATED: usize = 10_000;

/// A user without an id: the body of a request that creates or updates one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewUser {
    /// Which of the sample profiles this is.
    pub variant: u64,
    /// Everything else.
    pub profile: Profile,
}

/// A user of the store.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    id: u64,
    #[serde(flatten)]
    user: NewUser,
}

/// All users, shared by the handlers.
pub struct Store {
    users: RwLock<Users>,
}

struct Users {
    by_id: BTreeMap<u64, NewUser>,
    last_id: u64,
}

impl Store {
    /// A store with the users `1..=SEEDED_USERS`.
    pub fn seeded() -> Self {
        let seed = |id: u64| {
            let variant = id % VARIANTS;
            (id, NewUser { variant, profile: sample::profile(variant) })
        };
        let by_id = (1..=SEEDED_USERS).map(seed).collect();
        Self { users: RwLock::new(Users { by_id, last_id: SEEDED_USERS }) }
    }

    /// A copy of one user.
    pub fn get(&self, id: u64) -> Option<User> {
        self.read().by_id.get(&id).map(|user| User { id, user: user.clone() })
    }

    /// Copies of one page of users: those after an id, or the newest.
    pub fn list(&self, after: Option<u64>) -> Vec<User> {
        let users = self.read();
        let copy = |(&id, user): (&u64, &NewUser)| User { id, user: user.clone() };
        match after {
            Some(after) => users.by_id.range(after.saturating_add(1)..).take(PAGE).map(copy).collect(),
            None => users.by_id.iter().rev().take(PAGE).map(copy).collect(),
        }
    }

    /// Adds a user and returns its id.
    pub fn create(&self, user: NewUser) -> u64 {
        let mut users = self.write();
        users.last_id += 1;
        let id = users.last_id;
        users.by_id.insert(id, user);
        let oldest = users.by_id.range(SEEDED_USERS + 1..).next().map(|(&id, _)| id);
        let removed = match oldest {
            Some(oldest) if users.by_id.len() > SEEDED_USERS as usize + KEPT_CREATED => {
                users.by_id.remove(&oldest)
            }
            _ => None,
        };
        // Frees some twenty blocks, for which nobody has to wait.
        drop(users);
        drop(removed);
        id
    }

    /// Replaces a user; false if there is none with this id.
    pub fn update(&self, id: u64, user: NewUser) -> bool {
        let mut users = self.write();
        let Some(slot) = users.by_id.get_mut(&id) else { return false };
        let replaced = std::mem::replace(slot, user);
        drop(users);
        drop(replaced);
        true
    }

    fn read(&self) -> RwLockReadGuard<'_, Users> {
        self.users.read().expect("nothing panics while it holds the lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Users> {
        self.users.write().expect("nothing panics while it holds the lock")
    }
}

impl User {
    /// A user that has got its id.
    pub fn new(id: u64, user: NewUser) -> Self {
        Self { id, user }
    }
}
