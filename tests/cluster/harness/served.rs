//! An image attached by `cairn nbd serve`, a process that is no daemon of the cluster: as it runs beside a hypervisor.

use super::{Cluster, SOON};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The process. Dropped, it is killed.
pub struct Served {
    child: Child,
    pub socket: PathBuf,
}

impl Served {
    /// Serves an image on a socket in the cluster's directory, from when clients can connect.
    #[track_caller]
    pub fn start(cluster: &Cluster, image: &str) -> Self {
        let socket = cluster.path(&format!("{}.sock", image.replace('/', ".")));
        let arguments = ["nbd", "serve", image, "--format", "json", "--socket", socket.to_str().unwrap()];
        let mut child = cluster.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        while !line.ends_with("}\n") && printed.read_line(&mut line).unwrap() > 0 {}
        assert!(line.contains("\"uri\""), "`cairn nbd serve` ended: {:?}", child.wait());
        Served { child, socket }
    }

    /// For tools.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Asks it to stop with SIGTERM, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "`cairn nbd serve` does not stop");
            sleep(Duration::from_millis(20));
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
