//! What the active mgr publishes.

use super::Cluster;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

impl Cluster {
    /// One metric of every OSD, by the OSD's name; empty while no mgr is active.
    pub fn of_osds(&self, metric: &str) -> BTreeMap<String, f64> {
        let page = self.metrics().unwrap_or_default();
        let begin = format!("{metric}{{");
        let points = page.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(&begin)?.rsplit_once(' ')?;
            let osd = labels.split('"').find(|part| part.starts_with("osd."))?;
            Some((osd.to_owned(), value.parse().ok()?))
        });
        points.collect()
    }

    fn metrics(&self) -> Option<String> {
        let status = self.status()?;
        let active = status["mgr"]["active"].as_str()?;
        let conf = std::fs::read_to_string(self.path(&format!(".cairn/mgr.{active}/daemon.toml"))).unwrap();
        let listen = conf.lines().find_map(|line| line.strip_prefix("metrics_listen = ")).unwrap();
        let mut stream = TcpStream::connect(listen.trim_matches('"')).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: mgr\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }
}
