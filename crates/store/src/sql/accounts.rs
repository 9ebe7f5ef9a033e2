//! Who may sign in: administrators, tokens, sessions, and failed logins.

use aiproxy_core::Secret;
use serde_json::Value as Json;

use super::error::Error;
use super::link::{Link, Named, Row, Value};
use super::tx::Tx;
use super::types::{Administrator, Lockout, Session, Token};
use super::{Store, json};

/// How long a lockout that is over is remembered, seconds: failures further apart are not in a row.
const LOCKOUT_KEPT: i64 = 24 * 60 * 60;

impl Store {
    /// All administrators, oldest first.
    ///
    /// # Errors
    /// As the database.
    pub async fn administrators(&self) -> Result<Vec<Administrator>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(ADMINISTRATORS);
        statement.push(" ORDER BY created_at, id");
        link.rows(statement).await?.iter().map(administrator).collect()
    }

    /// The administrator with this id.
    ///
    /// # Errors
    /// As the database.
    pub async fn administrator(&self, id: &str) -> Result<Option<Administrator>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(ADMINISTRATORS);
        statement.push(" WHERE id = ").bind(id);
        link.row(statement).await?.as_ref().map(administrator).transpose()
    }

    /// The administrator with this name, whatever its case.
    ///
    /// # Errors
    /// As the database.
    pub async fn administrator_by_name(&self, name: &str) -> Result<Option<Administrator>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(ADMINISTRATORS);
        statement.push(" WHERE name_key = ").bind(&name.to_lowercase());
        link.row(statement).await?.as_ref().map(administrator).transpose()
    }

    /// All tokens, oldest first, revoked ones too.
    ///
    /// # Errors
    /// As the database.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(TOKENS);
        statement.push(" ORDER BY created_at, id");
        link.rows(statement).await?.iter().map(token).collect()
    }

    /// The token with this SHA-256, whether it still counts or not.
    ///
    /// # Errors
    /// As the database.
    pub async fn token_by_digest(&self, sha256: &[u8; 32]) -> Result<Option<Token>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(TOKENS);
        statement.push(" WHERE sha256 = ").bind(sha256);
        link.row(statement).await?.as_ref().map(token).transpose()
    }

    /// The session with this SHA-256, whether it has expired or not.
    ///
    /// # Errors
    /// As the database.
    pub async fn session(&self, sha256: &[u8; 32]) -> Result<Option<Session>, Error> {
        let mut link = self.pool.read().await?;
        let mut statement = link.sql(
            "SELECT sha256, administrator, csrf, created_at, seen_at, expires_at, address, agent \
             FROM sessions WHERE sha256 = ",
        );
        statement.bind(sha256);
        link.row(statement).await?.as_ref().map(session).transpose()
    }

    /// The failed logins of a subject.
    ///
    /// # Errors
    /// As the database.
    pub async fn lockout(&self, subject: &str) -> Result<Option<Lockout>, Error> {
        lockout(&mut self.pool.read().await?, subject).await
    }
}

impl Tx {
    /// Adds an administrator, or changes the one with the id: then `created_at` stays and its revision
    /// counts up.
    ///
    /// # Errors
    /// `Constraint` where another has the name.
    pub async fn put_administrator(&mut self, a: &Administrator) -> Result<(), Error> {
        let name_key = a.name.to_lowercase();
        let values: [Named<'_>; 9] = [
            ("name", (&a.name).into()),
            ("name_key", (&name_key).into()),
            ("display_name", (&a.display_name).into()),
            ("role", (&a.role).into()),
            ("password_hash", a.password_hash.expose().into()),
            ("status", (&a.status).into()),
            ("must_change", i64::from(a.must_change).into()),
            ("updated_at", a.updated_at.into()),
            ("last_login_at", a.last_login_at.into()),
        ];
        let mut update = self.link.updating("administrators", &values);
        update.push(", revision = revision + 1 WHERE id = ").bind(&a.id);
        if self.link.execute(update).await? == 0 {
            let mut values = values.to_vec();
            values.extend([
                ("id", (&a.id).into()),
                ("created_at", a.created_at.into()),
                ("revision", Value::from(1)),
            ]);
            self.link.insert("administrators", &values).await?;
        }
        Ok(())
    }

    /// Deletes an administrator with all sessions; `false` where there is none.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete_administrator(&mut self, id: &str) -> Result<bool, Error> {
        self.delete_sessions_of(id).await?;
        let mut statement = self.link.sql("DELETE FROM administrators WHERE id = ");
        statement.bind(id);
        Ok(self.link.execute(statement).await? > 0)
    }

    /// The administrator with this id, as this transaction has left it.
    ///
    /// # Errors
    /// As the database.
    pub async fn administrator(&mut self, id: &str) -> Result<Option<Administrator>, Error> {
        let mut statement = self.link.sql(ADMINISTRATORS);
        statement.push(" WHERE id = ").bind(id);
        self.link.row(statement).await?.as_ref().map(administrator).transpose()
    }

    /// How many there are with the role `administrator` and the status `active`.
    ///
    /// # Errors
    /// As the database.
    pub async fn active_administrators(&mut self) -> Result<i64, Error> {
        let statement = self
            .link
            .sql("SELECT COUNT(*) FROM administrators WHERE role = 'administrator' AND status = 'active'");
        self.link.row(statement).await?.map_or(Ok(0), |row| row.int(0))
    }

    /// Adds a token, or changes the one with the id.
    ///
    /// # Errors
    /// `Constraint` where another has the digest.
    pub async fn put_token(&mut self, t: &Token) -> Result<(), Error> {
        let scopes = Json::from(t.scopes.as_slice()).to_string();
        let values = [
            ("id", (&t.id).into()),
            ("name", (&t.name).into()),
            ("sha256", (&t.sha256).into()),
            ("prefix", (&t.prefix).into()),
            ("role", (&t.role).into()),
            ("scopes", (&scopes).into()),
            ("created_by", (&t.created_by).into()),
            ("created_at", t.created_at.into()),
            ("expires_at", t.expires_at.into()),
            ("last_used_at", t.last_used_at.into()),
            ("revoked_at", t.revoked_at.into()),
        ];
        self.link.upsert("admin_tokens", &["id"], &values).await.map(drop)
    }

    /// Deletes a token; `false` where there is none.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete_token(&mut self, id: &str) -> Result<bool, Error> {
        let mut statement = self.link.sql("DELETE FROM admin_tokens WHERE id = ");
        statement.bind(id);
        Ok(self.link.execute(statement).await? > 0)
    }

    /// Notes that a token was used at this moment (Unix time, seconds).
    ///
    /// # Errors
    /// As the database.
    pub async fn touch_token(&mut self, id: &str, at: i64) -> Result<(), Error> {
        let mut statement = self.link.updating("admin_tokens", &[("last_used_at", at.into())]);
        statement.push(" WHERE id = ").bind(id);
        statement.push(" AND (last_used_at IS NULL OR last_used_at < ").bind(at).push(")");
        self.link.execute(statement).await.map(drop)
    }

    /// Adds a session, or changes the one with the digest.
    ///
    /// # Errors
    /// `Constraint` where the administrator does not exist.
    pub async fn put_session(&mut self, s: &Session) -> Result<(), Error> {
        let values = [
            ("sha256", (&s.sha256).into()),
            ("administrator", (&s.administrator).into()),
            ("csrf", (&s.csrf).into()),
            ("created_at", s.created_at.into()),
            ("seen_at", s.seen_at.into()),
            ("expires_at", s.expires_at.into()),
            ("address", (&s.address).into()),
            ("agent", (&s.agent).into()),
        ];
        self.link.upsert("sessions", &["sha256"], &values).await.map(drop)
    }

    /// Deletes a session; `false` where there is none.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete_session(&mut self, sha256: &[u8; 32]) -> Result<bool, Error> {
        let mut statement = self.link.sql("DELETE FROM sessions WHERE sha256 = ");
        statement.bind(sha256);
        Ok(self.link.execute(statement).await? > 0)
    }

    /// Deletes all sessions of an administrator; how many there were.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete_sessions_of(&mut self, administrator: &str) -> Result<u64, Error> {
        let mut statement = self.link.sql("DELETE FROM sessions WHERE administrator = ");
        statement.bind(administrator);
        self.link.execute(statement).await
    }

    /// Notes that a session was seen at this moment (Unix time, seconds).
    ///
    /// # Errors
    /// As the database.
    pub async fn touch_session(&mut self, sha256: &[u8; 32], seen_at: i64) -> Result<(), Error> {
        let mut statement = self.link.updating("sessions", &[("seen_at", seen_at.into())]);
        statement.push(" WHERE sha256 = ").bind(sha256).push(" AND seen_at < ").bind(seen_at);
        self.link.execute(statement).await.map(drop)
    }

    /// Deletes sessions that have expired, and lockouts that have been over for a day; how many.
    ///
    /// # Errors
    /// As the database.
    pub async fn delete_expired(&mut self, now: i64) -> Result<u64, Error> {
        let mut statement = self.link.sql("DELETE FROM sessions WHERE expires_at <= ");
        statement.bind(now);
        let sessions = self.link.execute(statement).await?;
        let over = now.saturating_sub(LOCKOUT_KEPT);
        let mut statement = self.link.sql("DELETE FROM lockouts WHERE until <= ");
        statement.bind(over).push(" AND failed_at <= ").bind(over);
        Ok(sessions + self.link.execute(statement).await?)
    }

    /// The failed logins of a subject, as this transaction has left them.
    ///
    /// # Errors
    /// As the database.
    pub async fn lockout(&mut self, subject: &str) -> Result<Option<Lockout>, Error> {
        lockout(&mut self.link, subject).await
    }

    /// Keeps the failed logins of a subject in place of those before.
    ///
    /// # Errors
    /// As the database.
    pub async fn put_lockout(&mut self, l: &Lockout) -> Result<(), Error> {
        let values = [
            ("subject", (&l.subject).into()),
            ("failures", l.failures.into()),
            ("until", l.until.into()),
            ("failed_at", l.at.into()),
        ];
        self.link.upsert("lockouts", &["subject"], &values).await.map(drop)
    }

    /// Forgets the failed logins of a subject.
    ///
    /// # Errors
    /// As the database.
    pub async fn clear_lockout(&mut self, subject: &str) -> Result<(), Error> {
        let mut statement = self.link.sql("DELETE FROM lockouts WHERE subject = ");
        statement.bind(subject);
        self.link.execute(statement).await.map(drop)
    }
}

const ADMINISTRATORS: &str = "SELECT id, name, display_name, role, password_hash, status, must_change, \
     created_at, updated_at, last_login_at, revision FROM administrators";

fn administrator(row: &Row) -> Result<Administrator, Error> {
    Ok(Administrator {
        id: row.text(0)?,
        name: row.text(1)?,
        display_name: row.text(2)?,
        role: row.text(3)?,
        password_hash: Secret::new(row.text(4)?),
        status: row.text(5)?,
        must_change: row.int(6)? != 0,
        created_at: row.int(7)?,
        updated_at: row.int(8)?,
        last_login_at: row.maybe_int(9)?,
        revision: row.int(10)?,
    })
}

const TOKENS: &str = "SELECT id, name, sha256, prefix, role, scopes, created_by, created_at, expires_at, \
     last_used_at, revoked_at FROM admin_tokens";

fn token(row: &Row) -> Result<Token, Error> {
    Ok(Token {
        id: row.text(0)?,
        name: row.text(1)?,
        sha256: row.digest(2)?,
        prefix: row.text(3)?,
        role: row.text(4)?,
        scopes: json(&row.text(5)?, "the scopes of a token")?,
        created_by: row.text(6)?,
        created_at: row.int(7)?,
        expires_at: row.maybe_int(8)?,
        last_used_at: row.maybe_int(9)?,
        revoked_at: row.maybe_int(10)?,
    })
}

fn session(row: &Row) -> Result<Session, Error> {
    Ok(Session {
        sha256: row.digest(0)?,
        administrator: row.text(1)?,
        csrf: row.digest(2)?,
        created_at: row.int(3)?,
        seen_at: row.int(4)?,
        expires_at: row.int(5)?,
        address: row.text(6)?,
        agent: row.text(7)?,
    })
}

async fn lockout(link: &mut Link, subject: &str) -> Result<Option<Lockout>, Error> {
    let mut statement = link.sql("SELECT failures, until, failed_at FROM lockouts WHERE subject = ");
    statement.bind(subject);
    let Some(row) = link.row(statement).await? else { return Ok(None) };
    let subject = subject.to_owned();
    Ok(Some(Lockout { subject, failures: row.int(0)?, until: row.int(1)?, at: row.int(2)? }))
}
