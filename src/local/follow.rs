//! A daemon that ends with the process it belongs to, however that one ends.

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process, pidfd_open, set_parent_process_death_signal,
};
use std::os::fd::OwnedFd;

/// Sends this process SIGTERM when process `pid` ends, or at once when it has ended.
pub fn follow(pid: i32) -> anyhow::Result<()> {
    let leader = Pid::from_raw(pid).context("--follow takes the number of a process")?;
    if getppid() == Some(leader) {
        set_parent_process_death_signal(Some(Signal::TERM))
            .context("cannot ask for the end of the parent")?;
        // It may have ended before that.
        if getppid() != Some(leader) {
            stop_self();
        }
        return Ok(());
    }
    match pidfd_open(leader, PidfdFlags::empty()) {
        Ok(handle) => {
            let thread = std::thread::Builder::new().name("follow".to_owned());
            thread.spawn(move || wait(&handle)).context("cannot start a thread")?;
        }
        Err(Errno::SRCH) => stop_self(),
        Err(error) => return Err(error).context("cannot watch the process to follow"),
    }
    Ok(())
}

fn wait(handle: &OwnedFd) {
    // An error would leave a daemon that nobody looks after: it stops as well.
    while let Err(Errno::INTR) | Ok(0) = poll(&mut [PollFd::new(handle, PollFlags::IN)], None) {}
    stop_self();
}

fn stop_self() {
    // To oneself it cannot be refused.
    let _ = kill_process(getpid(), Signal::TERM);
}
