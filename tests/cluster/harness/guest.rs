//! A guest: Debian's cloud kernel under QEMU without hardware help, busybox, and a script, all in memory. Its only disk is
//! the image under test.

use super::cpio::Cpio;
use super::{Cluster, tools};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a guest may take for anything: without hardware help its kernel alone takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// What reaches a disk over PCI, in the order in which one needs another.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"];
/// Its lines on the console begin with this.
const MARK: &str = "guest: ";

/// It runs. Dropped, it is killed.
pub struct Guest {
    qemu: Child,
    lines: Receiver<String>,
    /// All that came, for the one who looks why it failed.
    console: Vec<String>,
}

impl Guest {
    /// Starts one with this disk as `/dev/vda`, which runs a shell script and switches itself off.
    pub fn start(cluster: &Cluster, disk: &str, script: &str) -> Self {
        let kernel = kernel_dir();
        let initramfs = cluster.path("initramfs");
        std::fs::write(&initramfs, initial_files(&kernel, script)).unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(kernel.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initramfs)
            .arg("-drive")
            .arg(format!("file={disk},format=raw,if=virtio,cache=none"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut qemu = command.spawn().unwrap_or_else(|error| {
            panic!("this test needs `qemu-system-x86_64` ({error}): ./test installs it when run as root")
        });
        let (sender, lines) = mpsc::channel();
        let console = BufReader::new(qemu.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in console.split(b'\n') {
                let Ok(line) = line else { return };
                let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
            }
        });
        Guest { qemu, lines, console: Vec::new() }
    }

    /// Waits until the script says a line that begins with this; gives the rest of it.
    #[track_caller]
    pub fn says(&mut self, what: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let said = line.strip_prefix(MARK).and_then(|said| said.strip_prefix(what));
                    let said = said.map(|rest| rest.trim().to_owned());
                    let is_failed = line.starts_with(&format!("{MARK}failed"));
                    self.console.push(line);
                    if is_failed {
                        self.fail("its script failed");
                    }
                    if let Some(said) = said {
                        return said;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("{PATIENCE:?} without '{what}'")),
                Err(RecvTimeoutError::Disconnected) => self.fail(&format!("it ended without '{what}'")),
            }
        }
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!("{why}; its console:\n{}", self.console.join("\n"))
    }

    /// Waits until it has switched itself off.
    #[track_caller]
    pub fn wait(mut self) {
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        assert!(self.qemu.wait().unwrap().success());
    }

    /// Ends it as a failure of power does.
    pub fn kill(mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Where `./test` puts the kernel and its modules.
fn kernel_dir() -> PathBuf {
    let dir = std::env::var_os("CAIRN_GUEST_KERNEL").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(home).join("cairn/guest-kernel")
    });
    assert!(
        dir.join("vmlinuz").exists(),
        "this test needs {}: ./test fetches and unpacks Debian's package linux-image-cloud-amd64",
        dir.join("vmlinuz").display()
    );
    dir
}

/// The files that the guest begins with.
fn initial_files(kernel: &Path, script: &str) -> Vec<u8> {
    let mut files = Cpio::default();
    for directory in ["dev", "proc", "sys", "disk", "tmp"] {
        files.directory(directory);
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.expect("this test needs busybox: ./test installs busybox-static when run as root");
    files.file("bin/busybox", &std::fs::read(busybox).unwrap());
    for module in MODULES {
        files.file(&format!("modules/{module}.ko"), &module_bytes(kernel, module));
    }
    // Busybox makes ext2 only.
    let mkfs = Path::new("/sbin/mke2fs");
    files.same(mkfs);
    files.same(Path::new("/etc/mke2fs.conf"));
    // A static one has none, and `ldd` says so with its exit code.
    let libraries =
        [busybox, mkfs].map(|program| tools::run("ldd", &[program.to_str().unwrap()]).stdout).concat();
    let libraries = String::from_utf8(libraries).unwrap();
    let libraries: BTreeSet<&str> =
        libraries.split_whitespace().filter(|word| word.starts_with("/lib")).collect();
    for library in libraries {
        files.same(Path::new(library));
    }
    let begin = "#!/bin/busybox sh\n\
        /bin/busybox --install -s /bin\n\
        export PATH=/sbin:/bin\n\
        mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys\n";
    let load = MODULES.map(|module| format!("insmod /modules/{module}.ko\n")).concat();
    let say = format!("say() {{ echo \"{MARK}$*\"; }}\n");
    files.file("init", format!("{begin}{load}{say}{script}\npoweroff -f\n").as_bytes());
    files.finish()
}

/// A module, unpacked: newer Debians have them compressed, and busybox loads them as they are.
fn module_bytes(kernel: &Path, module: &str) -> Vec<u8> {
    let plain = kernel.join(format!("{module}.ko"));
    if plain.exists() {
        return std::fs::read(plain).unwrap();
    }
    let packed = kernel.join(format!("{module}.ko.xz"));
    let output = tools::run("xz", &["-dc", packed.to_str().unwrap()]);
    assert!(output.status.success(), "{}", packed.display());
    output.stdout
}
