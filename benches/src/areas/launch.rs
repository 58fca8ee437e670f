//! Starting things elsewhere: `onnode` beside ssh, `ssirun` beside Hydra.

use super::cluster::{cluster, in_view, number, on_host};
use super::{own_path, print};
use crate::Error;
use ssi_benches::{Target, Unit, alternate};
use ssi_tests::Cluster;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BLOCKS: usize = 7;

/// Measures and prints.
pub fn run() -> Result<(), Error> {
    let cluster = cluster(3, &[])?;
    let hydra = ["time", "5", "mpiexec.hydra", "-n", "16", "true"];
    let blocks = alternate(
        BLOCKS,
        || in_view(&cluster, 1, &["time", "5", "ssirun", "-n", "16", "true"]),
        || on_host(&hydra),
    )?;
    println!("# peer: {}", hydra[2..].join(" "));
    print("launch.ssirun.true16", &blocks, "hydra", Unit::Micros, Target::AtMost(1.5));
    let ssh = Ssh::start(&cluster)?;
    let blocks =
        alternate(BLOCKS, || in_view(&cluster, 1, &["time", "20", "onnode", "2", "true"]), || ssh.time())?;
    println!("# peer: ssh 10.77.0.2 true, between the same network namespaces");
    print("launch.onnode.true", &blocks, "ssh", Unit::Micros, Target::AtMost(0.1));
    Ok(())
}

/// An sshd in the network namespace of node 2 and what a client of node 1 needs to reach it.
struct Ssh {
    dir: tempfile::TempDir,
    daemon: Child,
    client: i32,
}

impl Ssh {
    fn start(cluster: &Cluster) -> Result<Ssh, Error> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let keeper = |k| cluster.process(k, "ssi-keeper").first().copied().ok_or("no keeper");
        let (client, server) = (keeper(1)?, keeper(2)?);
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status()?;
            if !made.success() {
                return Err("ssh-keygen failed (package openssh-client)".into());
            }
        }
        std::fs::copy(path("user.pub"), path("authorized"))?;
        let config = format!(
            "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n",
            path("host"),
            path("authorized"),
            path("pid")
        );
        std::fs::write(path("sshd_config"), config)?;
        std::fs::create_dir_all("/run/sshd")?;
        let mut command = in_network(server);
        command.args(["/usr/sbin/sshd", "-D", "-f", &path("sshd_config")]).stderr(Stdio::null());
        let ssh = Ssh { daemon: command.spawn()?, client, dir };
        ssi_tests::wait_until("sshd answers", Duration::from_secs(10), || ssh.time().is_ok());
        Ok(ssh)
    }

    fn time(&self) -> Result<f64, Error> {
        let path = |name: &str| Path::new(self.dir.path()).join(name).display().to_string();
        let mut command = in_network(self.client);
        command.args([&own_path()?, "probe", "time", "5", "ssh", "-F", "none", "-o", "BatchMode=yes"]);
        command.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            &format!("UserKnownHostsFile={}", path("known")),
        ]);
        command.args(["-i", &path("user"), "10.77.0.2", "true"]);
        number(command)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The start of a command in the network namespace of process `pid`.
fn in_network(pid: i32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "--"]);
    command
}
