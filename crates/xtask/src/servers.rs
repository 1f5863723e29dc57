//! Servers for tests, out of Debian's packages: PostgreSQL, Redis and nginx, unpacked into the cache.

use std::path::PathBuf;
use std::process::Command;

use crate::debian_packages::{library_folder, unpack, unpack_libraries};

/// Shared libraries that the servers and their clients need and a small machine may lack.
const LIBRARIES: [&str; 11] = [
    "libpq5",
    "libxml2",
    "libicu72",
    "libldap-2.5-0",
    "libsasl2-2",
    "libreadline8",
    "libjemalloc2",
    "liblzf1",
    "liblua5.3-0",
    "lua-cjson",
    "libpcre2-8-0",
];

/// Folders of the unpacked programs.
pub(crate) struct ServerPrograms {
    postgres: PathBuf,
    redis: PathBuf,
    nginx: PathBuf,
}

impl ServerPrograms {
    /// Unpacks whatever is missing in the cache.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or unpacked.
    pub(crate) fn unpack() -> anyhow::Result<Self> {
        let postgres = unpack("postgresql-15", "usr/lib/postgresql/15/bin/postgres")?;
        unpack("postgresql-client-15", "usr/lib/postgresql/15/bin/psql")?;
        unpack("redis-tools", "usr/bin/redis-check-rdb")?;
        let redis = unpack("redis-server", "usr/bin/redis-server")?;
        let nginx = unpack("nginx", "usr/sbin/nginx")?;
        unpack_libraries(&LIBRARIES)?;
        let folder = |program: PathBuf| program.parent().map(PathBuf::from).unwrap_or_default();
        Ok(Self { postgres: folder(postgres), redis: folder(redis), nginx: folder(nginx) })
    }

    /// Passes the folders to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("POSTGRES_BIN", &self.postgres).env("REDIS_BIN", &self.redis).env("NGINX_BIN", &self.nginx);
        command.env("CLIENT_LIBRARIES", library_folder());
    }
}
