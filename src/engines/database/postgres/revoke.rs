//! Ending a user for good.
//!
//! `DROP ROLE` alone leaves its open sessions working, and fails while the role owns anything. So:
//! no login any more (committed first, so that whatever fails later, the credential is dead), its
//! sessions ended, what it owns handed over in every database, its privileges dropped, the role
//! dropped, and its sessions looked for once more, because one may have slipped in while its login
//! was being checked.
//!
//! What it owned is not handed to the broker's own user: a function or view that a leased user left
//! behind would from then on run with the broker's privileges. It goes to a role without login or
//! privileges, one for each role of ours.

use std::time::Duration;

use tokio_postgres::SimpleQueryRow;
use zeroize::Zeroizing;

use super::pool::{Lent, Pool};
use super::transaction::{Failed, OWN_PATH, Open, TRIES_MAX, Work, ask, begin, begin_on};
use crate::core::failpoint::fail_point;
use crate::engines::database::driver::{DoomedUser, DriverError};
use crate::engines::database::sql::{quote_literal, quote_name};
use crate::engines::database::statement::Values;

const SESSION_CHECKS_MAX: usize = 50;
const SESSION_CHECK_PAUSE: Duration = Duration::from_millis(100);

/// A role as it was when its login was taken away.
struct Doomed {
    oid: u32,
    /// The broker is no superuser and not yet a member of it.
    needs_membership: bool,
}

pub(super) async fn revoke(pool: &Pool, user: &DoomedUser<'_>) -> Result<(), DriverError> {
    let Some(doomed) = disable(pool, user.name).await? else { return Ok(()) };
    fail_point("database.disabled");
    if doomed.needs_membership {
        join(pool, user.name).await?;
    }
    end_sessions(pool, doomed.oid).await?;
    if user.revocation.is_empty() {
        let owns = hand_over_elsewhere(pool, user, doomed.oid).await?;
        drop_role(pool, user, owns).await?;
    } else {
        run_statements(pool, user).await?;
    }
    end_sessions(pool, doomed.oid).await
}

/// Takes the login away, durably. `None` when there is no such role, nor one being made.
async fn disable(pool: &Pool, name: &str) -> Result<Option<Doomed>, DriverError> {
    let question = format!(
        "SELECT r.oid, NOT me.rolsuper AND NOT pg_has_role(me.oid, r.oid, 'USAGE') \
         FROM pg_roles r, pg_roles me WHERE r.rolname = {} AND me.rolname = current_user",
        quote_literal(name)
    );
    let open = begin_own(pool, "disable the login", name, &question).await?;
    let Some(row) = open.rows().first() else {
        open.commit().await?;
        return Ok(None);
    };
    let doomed = Doomed { oid: oid(row)?, needs_membership: is_true(row, 1) };
    let disable = format!("ALTER ROLE {} NOLOGIN", quote_name(name));
    open.finish(&[Zeroizing::new(disable)]).await.map_err(|failed| failed.error)?;
    Ok(Some(doomed))
}

/// Ending sessions and handing over what a role owns asks for membership, unless one is superuser.
async fn join(pool: &Pool, name: &str) -> Result<(), DriverError> {
    let grant = format!("GRANT {} TO CURRENT_USER", quote_name(name));
    match begin_own(pool, "become a member of the role", name, &grant).await {
        Ok(open) => open.commit().await,
        // Whether it was needed, and what for, the next steps tell better.
        Err(DriverError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn end_sessions(pool: &Pool, oid: u32) -> Result<(), DriverError> {
    const STEP: &str = "end live sessions";
    let lent = pool.take().await?;
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE usesysid = {oid} AND pid <> pg_backend_pid()"
    );
    for _ in 0..SESSION_CHECKS_MAX {
        if ask(&lent, STEP, &sql).await?.is_empty() {
            lent.give_back();
            return Ok(());
        }
        tokio::time::sleep(SESSION_CHECK_PAUSE).await;
    }
    Err(DriverError::Unavailable { step: STEP, source: None })
}

/// Hands over and drops what the role has in other databases. Tells whether it owns anything.
async fn hand_over_elsewhere(
    pool: &Pool,
    user: &DoomedUser<'_>,
    oid: u32,
) -> Result<bool, DriverError> {
    const STEP: &str = "find what the user owns";
    let lent = pool.take().await?;
    let rows = ask(
        &lent,
        STEP,
        &format!(
            "SELECT CASE WHEN s.dbid = 0 OR d.datname = current_database() THEN NULL \
             ELSE d.datname END, bool_or(s.deptype = 'o') \
             FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} GROUP BY 1"
        ),
    )
    .await?;
    lent.give_back();
    let owns = rows.iter().any(|row| is_true(row, 1));
    if owns {
        make_heir(pool, user.heir).await?;
    }
    for row in &rows {
        let Some(database) = row.get(0) else { continue };
        let statements = hand_over(user, is_true(row, 1));
        in_database(pool, database, user.name, &statements).await.map_err(|error| {
            let reason = match error {
                DriverError::Login { code } => {
                    format!("refuses the configured user (SQLSTATE {code})")
                }
                DriverError::Refused { message, code, .. } => {
                    format!("refused: {message} (SQLSTATE {code})")
                }
                DriverError::Unavailable { .. }
                | DriverError::Busy { .. }
                | DriverError::NoSuchUser
                | DriverError::NotBegun(_)
                | DriverError::NotCreated
                | DriverError::StillAlive
                | DriverError::OtherDatabase { .. }
                | DriverError::Statement(_)
                | DriverError::Scram(_)
                | DriverError::Random(_) => return error,
            };
            DriverError::OtherDatabase { database: database.to_owned(), reason }
        })?;
    }
    Ok(owns)
}

async fn in_database(
    pool: &Pool,
    database: &str,
    name: &str,
    statements: &[Zeroizing<String>],
) -> Result<(), DriverError> {
    let mut tries = 0;
    loop {
        let lent: Lent<'_> = pool.take_in(database).await?;
        let work = Work::new("hand over what the user owns in another database");
        tries += 1;
        match begin_on(lent, work, name, statements).await {
            Ok(open) => return open.commit().await,
            Err((Failed { contended: true, .. }, _)) if tries < TRIES_MAX => {}
            Err((Failed { error, .. }, _)) => return Err(error),
        }
    }
}

fn hand_over(user: &DoomedUser<'_>, owns: bool) -> Vec<Zeroizing<String>> {
    let name = quote_name(user.name);
    let mut statements = vec![OWN_PATH.to_owned()];
    if owns {
        statements.push(format!("REASSIGN OWNED BY {name} TO {}", quote_name(user.heir)));
    }
    statements.push(format!("DROP OWNED BY {name}"));
    statements.into_iter().map(Zeroizing::new).collect()
}

async fn make_heir(pool: &Pool, heir: &str) -> Result<(), DriverError> {
    const STEP: &str = "make the role that inherits";
    let open = begin_own(pool, STEP, heir, &find(heir)).await?;
    if open.rows().is_empty() {
        let make = format!("CREATE ROLE {} NOLOGIN NOINHERIT", quote_name(heir));
        open.finish(&[Zeroizing::new(make)]).await.map_err(|failed| failed.error)?;
    } else {
        open.commit().await?;
    }
    let lent = pool.take().await?;
    let outside = ask(
        &lent,
        STEP,
        &format!(
            "SELECT 1 FROM pg_roles WHERE rolname = current_user AND NOT rolsuper \
             AND NOT pg_has_role(oid, {}, 'USAGE')",
            quote_literal(heir)
        ),
    )
    .await?;
    lent.give_back();
    if outside.is_empty() { Ok(()) } else { join(pool, heir).await }
}

async fn drop_role(pool: &Pool, user: &DoomedUser<'_>, owns: bool) -> Result<(), DriverError> {
    let mut statements = hand_over(user, owns);
    statements.push(Zeroizing::new(format!("DROP ROLE {}", quote_name(user.name))));
    let mut tries = 0;
    loop {
        let open = begin_own(pool, "drop the user", user.name, &find(user.name)).await?;
        if open.rows().is_empty() {
            return open.commit().await;
        }
        tries += 1;
        match open.finish(&statements).await {
            Ok(()) => return Ok(()),
            // Users of one table lose their privileges on it one after the other.
            Err(Failed { contended: true, .. }) if tries < TRIES_MAX => {}
            Err(Failed { error, .. }) => return Err(error),
        }
    }
}

/// The operator's own way of revoking, and a look at what it left.
async fn run_statements(pool: &Pool, user: &DoomedUser<'_>) -> Result<(), DriverError> {
    let statements =
        user.revocation.render(&Values { name: user.name, password: "", expiration: "" })?;
    let work = Work::new("run the revocation statements");
    let open =
        begin(pool, work, user.name, &statements).await.map_err(|Failed { error, .. }| error)?;
    open.commit().await?;
    let lent = pool.take().await?;
    let rows = ask(
        &lent,
        "look for the revoked user",
        &format!(
            "SELECT 1 FROM pg_roles WHERE rolcanlogin AND rolname = {}",
            quote_literal(user.name)
        ),
    )
    .await?;
    lent.give_back();
    if rows.is_empty() { Ok(()) } else { Err(DriverError::StillAlive) }
}

/// A transaction that begins with a statement of ours.
async fn begin_own<'a>(
    pool: &'a Pool,
    step: &'static str,
    name: &str,
    first: &str,
) -> Result<Open<'a>, DriverError> {
    let statements = [OWN_PATH, first].map(|statement| Zeroizing::new(statement.to_owned()));
    begin(pool, Work::new(step), name, &statements).await.map_err(|Failed { error, .. }| error)
}

fn find(name: &str) -> String {
    format!("SELECT 1 FROM pg_roles WHERE rolname = {}", quote_literal(name))
}

fn is_true(row: &SimpleQueryRow, column: usize) -> bool {
    row.get(column) == Some("t")
}

fn oid(row: &SimpleQueryRow) -> Result<u32, DriverError> {
    row.get(0)
        .and_then(|text| text.parse().ok())
        .ok_or(DriverError::Unavailable { step: "read the user's id", source: None })
}
