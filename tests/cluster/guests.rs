//! A guest uses the disk as its own, dies, and another one finds what was synced.

use crate::harness::guest::Guest;
use crate::harness::served::Served;
use crate::harness::{Cluster, tools};

/// Makes ext4, writes the guest's own programs and 16 MiB of noise, and syncs. Then it writes on until it is killed.
const FIRST: &str = "
/sbin/mke2fs -q -t ext4 -F /dev/vda && mount -t ext4 /dev/vda /disk || say failed
mkdir /disk/files
cp /bin/busybox /sbin/mke2fs /modules/* $(find /lib /lib64 -type f) /disk/files
dd if=/dev/urandom of=/disk/files/noise bs=1M count=16 2>/dev/null
(cd /disk/files && sha256sum * >/disk/sums)
sync
say written $(ls /disk/files | wc -l) $(sha256sum </disk/sums)
while true; do dd if=/dev/urandom of=/disk/more.$RANDOM bs=64k count=8 2>/dev/null; done
";

/// Finds it all. The file system is left in good order.
const SECOND: &str = "
mount -t ext4 /dev/vda /disk || say failed
cd /disk/files && sha256sum -c /disk/sums >/tmp/checked 2>&1 || say failed
say found $(grep -c OK /tmp/checked) $(sha256sum </disk/sums)
cd / && umount /disk && say closed
";

#[test]
fn a_second_guest_finds_what_the_first_one_synced_before_it_was_killed() {
    let cluster = Cluster::up("2GiB");
    cluster.ok(&["image", "create", "vms/guest", "--size", "512MiB"]);
    let mut served = Served::start(&cluster, "vms/guest");

    let mut first = Guest::start(&cluster, &served.uri(), FIRST);
    let written = first.says("written");
    assert!(written.split(' ').next().unwrap().parse::<u32>().unwrap() > 10, "{written}");
    // In the midst of the next files.
    std::thread::sleep(std::time::Duration::from_secs(2));
    first.kill();

    let mut second = Guest::start(&cluster, &served.uri(), SECOND);
    assert_eq!(second.says("found"), written);
    second.says("closed");
    second.wait();

    assert!(served.stop().success());
    let copy = cluster.path("copy");
    let copy = copy.to_str().unwrap();
    cluster.ok(&["image", "export", "vms/guest", copy]);
    let checked = tools::succeed("e2fsck", &["-f", "-n", copy]);
    assert!(!checked.contains("WARNING"), "{checked}");
}
