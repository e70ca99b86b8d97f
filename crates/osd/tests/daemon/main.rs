//! OSDs as they run: real stores, real connections, a real monitor and a real client, on loopback.

mod support;

use cairn_client::ObjectIo;
use cairn_osd::daemon::{OsdError, OsdOptions};
use cairn_wire::Payload;
use cairn_wire::op::{OpFlags, OpKind};
use support::{Cluster, test};

async fn write(pool: &impl ObjectIo, object: &str, bytes: &'static [u8]) {
    let op = OpKind::WriteFull { len: bytes.len() as u64 };
    pool.operate(object, vec![op.into()], Payload::of(0, bytes.into()), OpFlags::default())
        .await
        .expect("it is written");
}

async fn read(pool: &impl ObjectIo, object: &str) -> Vec<u8> {
    let op = OpKind::Read { offset: 0, len: 0 };
    let answer = pool.operate(object, vec![op.into()], Payload::none(), OpFlags::default()).await;
    let data = answer.expect("it is read").data;
    data.segments().iter().flat_map(|segment| segment.data().to_vec()).collect()
}

#[test]
fn what_is_written_survives_the_loss_of_an_osd_and_the_stop_of_all() {
    test(async {
        let mut cluster = Cluster::start(3).await;
        let client = cluster.client().await;
        let pool = cluster.make_pool(&client, "vms").await;
        for n in 0..32 {
            write(&pool, &format!("object {n}"), b"first").await;
        }
        assert_eq!(read(&pool, "object 7").await, b"first");

        cluster.kill(0);
        for n in 0..32 {
            write(&pool, &format!("object {n}"), b"second").await;
        }
        cluster.start_osd(0);
        for n in 0..32 {
            assert_eq!(read(&pool, &format!("object {n}")).await, b"second");
        }
        for osd in 0..3 {
            cluster.stop(osd).await.expect("it stops in good order");
        }
        for osd in 0..3 {
            cluster.start_osd(osd);
        }
        for n in 0..32 {
            assert_eq!(read(&pool, &format!("object {n}")).await, b"second");
        }
    });
}

#[test]
fn what_keeps_an_osd_from_running_is_told_in_a_sentence() {
    test(async {
        let cluster = Cluster::start(1).await;
        cluster.until_up(0).await;
        let run = |options: OsdOptions| cairn_osd::daemon::run(options, std::future::pending());

        let in_use = run(cluster.options(0)).await.unwrap_err();
        assert!(matches!(in_use, OsdError::Store { .. }) && in_use.to_string().contains("osd.0"), "{in_use}");

        let store = cluster.new_store().await;
        let mut options = OsdOptions { store: store.clone(), ..cluster.options(0) };
        options.identity = cluster.identity("osd.7");
        let other = run(options).await.unwrap_err().to_string();
        assert!(other.contains("is of osd.1") && other.contains("osd.7"), "{other}");

        let mut options = OsdOptions { store: store.clone(), ..cluster.options(0) };
        options.identity = cluster.identity("client.admin");
        let no_osd = run(options).await.unwrap_err().to_string();
        assert!(no_osd.contains("client.admin"), "{no_osd}");

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = OsdOptions { store, ..cluster.options(0) };
        options.identity = cluster.identity("osd.1");
        options.cluster = listener.local_addr().unwrap();
        let port = run(options).await.unwrap_err();
        assert!(matches!(port, OsdError::Bind(_)), "{port}");
        assert!(port.to_string().contains("another process has the port"), "{port}");
    });
}
