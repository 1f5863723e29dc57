//! A real nginx in front of a server, as Debian packages it: unpacked by `cargo xtask test`, never installed.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::debian_server::{await_start, free_port, program};

/// A running nginx.
pub struct NginxServer {
    /// Port on 127.0.0.1.
    pub port: u16,
    child: Child,
}

impl NginxServer {
    /// Starts nginx in `dir` with the directives of its one `server` block.
    ///
    /// # Errors
    /// Returns an error if it does not start; its log is in the error.
    pub fn start(dir: &Path, directives: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (port, log, folder) = (free_port()?, dir.join("nginx.log"), dir.display());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
            .collect();
        let text = format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/nginx.pid;\nevents {{}}\nhttp {{\n  \
             access_log off;\n{temporary}  server {{\n  listen 127.0.0.1:{port};\n{directives}\n  }}\n}}\n"
        );
        let configuration = dir.join("nginx.conf");
        std::fs::write(&configuration, text)?;
        let mut nginx = program("NGINX_BIN", "/usr/sbin", "nginx")?;
        nginx.arg("-e").arg(&log).arg("-p").arg(dir).arg("-c").arg(&configuration);
        let child = nginx.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(dir.join("stderr.log"))?);
        let mut server = Self { port, child: child.spawn()? };
        await_start("nginx", &mut server.child, &log, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }
}

impl Drop for NginxServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
