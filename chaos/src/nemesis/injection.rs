//! Fault injection: how each kind of fault is brought about.
//!
//! Promise: all random choices come from the target's generator, so that a seed repeats them.
//! Refused: healing. A step that fails returns its error and leaves earlier steps in effect.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use super::hostile::Attack;
use super::{
    FaultKind, FaultTarget, HOSTILE_CLIENT, InjectedFault, RECOVERY_TIMEOUT, Repair, bit_flip,
};
use crate::cluster::{DiskFault, LinkQuality, TestCluster};
use history::NodeId;

/// The `errno` of an input/output error.
const EIO: i64 = 5;
/// The `errno` of a full disk.
const ENOSPC: i64 = 28;
/// One hour, in seconds.
const HOUR_S: i64 = 3600;
/// The years to 2343, in seconds.
const LEAP_S: i64 = 317 * 365 * 86_400;
/// How long a throttled node runs, in turns with [`STOP_SLICE`].
const RUN_SLICE: Duration = Duration::from_millis(20);
/// How long a throttled node is stopped.
const STOP_SLICE: Duration = Duration::from_millis(80);
/// The port on which nodes connect to each other, in namespaces.
const PEER_PORT: i64 = 3300;

/// One fault before it is in effect.
pub(super) struct FaultInjection<'a> {
    pub(super) cluster: &'a mut TestCluster,
    pub(super) kind: &'static FaultKind,
    pub(super) target: FaultTarget,
}

impl FaultInjection<'_> {
    /// Injects the fault; the name of its kind decides how.
    pub(super) async fn inject(mut self) -> Result<InjectedFault> {
        let leader = self.target.leader;
        match self.kind.name {
            "kill-follower" => self.kill_one_of(&self.followers()),
            "kill-leader" => self.kill_one_of(&[leader]),
            "kill-majority" => self.kill(self.followers()),
            "kill-all" => self.kill(self.cluster.ids()),
            "pause-leader" => self.pause(leader),
            "rolling-restart" => self.rolling_restart().await,
            "restart-leader" => self.restart(leader).await,
            "empty-disk" => self.empty_disk(),
            "flip-wal" => self.flip_bit("raft/log", true),
            "flip-checkpoint" => self.flip_bit("raft/checkpoints", false),
            "flip-store" => self.flip_bit("raft/store", false),
            "sync-error" => self.inject_disk_fault(DiskFault::SyncFails, EIO, "every sync fails"),
            "write-error" => self.inject_disk_fault(
                DiskFault::WriteFails,
                ENOSPC,
                "every write fails, the disk is full",
            ),
            "slow-sync" => {
                let us = self.target.rng.between(20_000, 300_000).cast_signed();
                self.inject_disk_fault(
                    DiskFault::SyncIsSlow,
                    us,
                    &format!("a sync takes {} ms longer", us / 1000),
                )
            }
            "slow-disk" => {
                let us = self.target.rng.between(1_100_000, 2_500_000).cast_signed();
                let words = format!("a sync takes {} ms longer", us / 1000);
                self.inject_disk_fault_on(leader, DiskFault::SyncIsSlow, us, &words)
            }
            "clock-leap" => self.shift_clock_of(leader, LEAP_S, "the clock is in another century"),
            "clock-ahead" => self.shift_clock(HOUR_S, "the clock is an hour ahead"),
            "clock-behind" => self.shift_clock(-HOUR_S, "the clock is an hour behind"),
            "memory-kill" => self.limit_memory(),
            "starve" => self.throttle_cpu(),
            HOSTILE_CLIENT => self.hostile_client(),
            "checkpoint-cut" => self.checkpoint_cut().await,
            "disk-full" => {
                let node = self.any_node();
                self.fill_disks(vec![node])
            }
            "disk-full-leader" => self.fill_disks(vec![leader]),
            "disks-full" => self.fill_disks(self.cluster.ids()),
            "power-one" => {
                let node = self.any_node();
                self.cut_power_of(vec![node])
            }
            "power-all" => self.cut_power_of(self.cluster.ids()),
            name => self.inject_network_fault(name),
        }
    }

    fn injected(&self, nodes: Vec<NodeId>, description: String) -> InjectedFault {
        InjectedFault {
            kind: self.kind,
            nodes,
            description,
            minority: Vec::new(),
            background_task: None,
            repair: None,
        }
    }

    fn followers(&self) -> Vec<NodeId> {
        self.cluster.ids().into_iter().filter(|node| *node != self.target.leader).collect()
    }

    /// The leader in at least half of all cases: most bugs show there.
    fn any_node(&mut self) -> NodeId {
        if self.target.rng.random_bool(50) {
            self.target.leader
        } else {
            *self.target.rng.choose(&self.cluster.ids())
        }
    }

    fn kill_one_of(&mut self, nodes: &[NodeId]) -> Result<InjectedFault> {
        let node = *self.target.rng.choose(nodes);
        self.kill(vec![node])
    }

    fn kill(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        for node in &nodes {
            self.cluster.process(*node).kill()?;
        }
        Ok(self.injected(nodes.clone(), format!("killed {nodes:?}")))
    }

    fn pause(&mut self, node: NodeId) -> Result<InjectedFault> {
        self.cluster.process(node).signal(Signal::STOP)?;
        Ok(self.injected(vec![node], format!("paused {node}")))
    }

    async fn restart(&mut self, node: NodeId) -> Result<InjectedFault> {
        self.cluster.process(node).stop().await?;
        Ok(self.injected(vec![node], format!("stopped {node} with SIGTERM")))
    }

    async fn rolling_restart(&mut self) -> Result<InjectedFault> {
        // Each node is ready before the next one stops: a majority is up all the time.
        for node in self.cluster.ids() {
            self.cluster.process(node).stop().await?;
            self.cluster.process(node).start()?;
            self.cluster.wait_until_ready(RECOVERY_TIMEOUT).await?;
        }
        Ok(self.injected(self.cluster.ids(), "each node was stopped and started".to_owned()))
    }

    fn empty_disk(&mut self) -> Result<InjectedFault> {
        let node = self.any_node();
        let process = self.cluster.process(node);
        process.kill()?;
        let moved_to = process.move_data_away()?;
        // It runs with the empty disk while the fault lasts; the others must not accept it.
        process.start()?;
        let injected = self.injected(vec![node], format!("{node} came back with an empty disk"));
        Ok(InjectedFault { repair: Some(Repair::MovedDirectory { node, moved_to }), ..injected })
    }

    fn flip_bit(&mut self, subdirectory: &str, skip_tail: bool) -> Result<InjectedFault> {
        let node = self.any_node();
        // The node must not run: it would hold the bytes in memory and never read the flipped bit.
        self.cluster.process(node).kill()?;
        let data = self.cluster.process(node).data.clone();
        let bit =
            bit_flip::flip_random_bit(&data.join(subdirectory), skip_tail, &mut self.target.rng)?;
        let injected = self.injected(vec![node], format!("killed {node} and flipped {bit}"));
        Ok(InjectedFault { repair: Some(Repair::BitFlip { node, bit }), ..injected })
    }

    fn inject_disk_fault(
        &mut self,
        fault: DiskFault,
        number: i64,
        description: &str,
    ) -> Result<InjectedFault> {
        let node = self.any_node();
        self.inject_disk_fault_on(node, fault, number, description)
    }

    fn inject_disk_fault_on(
        &mut self,
        node: NodeId,
        fault: DiskFault,
        number: i64,
        description: &str,
    ) -> Result<InjectedFault> {
        self.cluster.process(node).set_disk_fault(fault, number)?;
        Ok(self.injected(vec![node], format!("on {node} {description}")))
    }

    fn shift_clock(&mut self, seconds: i64, description: &str) -> Result<InjectedFault> {
        let node = self.any_node();
        self.shift_clock_of(node, seconds, description)
    }

    fn shift_clock_of(
        &mut self,
        node: NodeId,
        seconds: i64,
        description: &str,
    ) -> Result<InjectedFault> {
        self.cluster.process(node).set_clock_offset_s(seconds)?;
        Ok(self.injected(vec![node], format!("on {node} {description}")))
    }

    fn limit_memory(&mut self) -> Result<InjectedFault> {
        let node = self.any_node();
        self.cluster.process(node).deny_further_memory()?;
        Ok(self.injected(vec![node], format!("{node} gets no more memory")))
    }

    fn throttle_cpu(&mut self) -> Result<InjectedFault> {
        let node = self.any_node();
        let pid = self.cluster.process(node).pid()?;
        let background_task = tokio::spawn(async move {
            loop {
                // The signals fail if the process has exited; then there is nothing to throttle.
                let _ = kill_process(pid, Signal::STOP);
                sleep(STOP_SLICE).await;
                let _ = kill_process(pid, Signal::CONT);
                sleep(RUN_SLICE).await;
            }
        });
        let injected = self.injected(vec![node], format!("{node} gets a fifth of the processor"));
        Ok(InjectedFault { background_task: Some(background_task), ..injected })
    }

    fn hostile_client(&mut self) -> Result<InjectedFault> {
        let node = self.any_node();
        let attack = *self.target.rng.choose(&Attack::ALL);
        let http = self.cluster.process(node).http.clone();
        let background_task = tokio::spawn(attack.run(http));
        let injected = self.injected(vec![node], format!("a client of {node}: {attack:?}"));
        Ok(InjectedFault { background_task: Some(background_task), ..injected })
    }

    /// Kills a follower, starts it after so long that it needs a checkpoint, and kills it again
    /// while it receives one.
    async fn checkpoint_cut(&mut self) -> Result<InjectedFault> {
        let nodes = self.followers();
        let node = *self.target.rng.choose(&nodes);
        self.cluster.process(node).kill()?;
        sleep(Duration::from_millis(self.target.rng.between(20_000, 30_000))).await;
        self.cluster.process(node).start()?;
        sleep(Duration::from_millis(self.target.rng.between(50, 600))).await;
        self.cluster.process(node).kill()?;
        Ok(self.injected(vec![node], format!("killed {node}, and again while it caught up")))
    }

    fn fill_disks(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        for node in &nodes {
            self.cluster.process(*node).disk()?.fill()?;
        }
        Ok(self.injected(nodes.clone(), format!("the disks of {nodes:?} are full")))
    }

    fn cut_power_of(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        self.cluster.cut_power(&nodes)?;
        Ok(self.injected(nodes.clone(), format!("cut the power of {nodes:?}")))
    }

    fn inject_network_fault(&mut self, name: &str) -> Result<InjectedFault> {
        match name {
            "isolate-leader" => self.isolate(self.target.leader),
            "split" => {
                let node = self.any_node();
                self.isolate(node)
            }
            "ring" | "one-way" | "peer-port" => self.cut_links(name),
            "delay" | "loss" | "twice" | "narrow" => self.degrade_links(name),
            other => bail!("there is no fault of the name {other}"),
        }
    }

    fn isolate(&self, one: NodeId) -> Result<InjectedFault> {
        let network = self.cluster.network()?;
        for other in self.all_except(one) {
            network.set(one, other, LinkQuality::CUT)?;
            network.set(other, one, LinkQuality::CUT)?;
        }
        let injected =
            self.injected(vec![one], format!("{one} and the others do not reach each other"));
        // At least three nodes: one alone is never a majority.
        Ok(InjectedFault { minority: vec![one], ..injected })
    }

    fn all_except(&self, one: NodeId) -> Vec<NodeId> {
        self.cluster.ids().into_iter().filter(|node| *node != one).collect()
    }

    fn cut_links(&mut self, name: &str) -> Result<InjectedFault> {
        let one = self.any_node();
        let rest = self.all_except(one);
        // Only `peer-port` uses a second node.
        let other = *self.target.rng.choose(&rest);
        let network = self.cluster.network()?;
        let description = match name {
            "ring" => {
                let (a, b) = (rest[0], rest[1]);
                network.set(a, b, LinkQuality::CUT)?;
                network.set(b, a, LinkQuality::CUT)?;
                format!("{a} and {b} do not reach each other; both reach {one}")
            }
            "one-way" => {
                for other in rest {
                    network.set(one, other, LinkQuality::CUT)?;
                }
                format!("{one} receives from the others, and they do not receive from it")
            }
            _ => {
                let link = LinkQuality { closed_port: PEER_PORT, ..LinkQuality::default() };
                network.set(one, other, link)?;
                network.set(other, one, link)?;
                format!("{one} and {other} do not reach each other's port for peers")
            }
        };
        Ok(self.injected(vec![one], description))
    }

    fn degrade_links(&mut self, name: &str) -> Result<InjectedFault> {
        let rng = &mut self.target.rng;
        let normal = LinkQuality::default();
        let (link, description) = match name {
            "delay" => {
                let ms = rng.between(20, 60).cast_signed();
                let link = LinkQuality { delay_us: ms * 1000, jitter_us: ms * 500, ..normal };
                (link, format!("packets are {ms} ms late, and up to half of it more"))
            }
            "loss" => {
                let percent = rng.between(5, 20).cast_signed();
                let link = LinkQuality { loss_ppm: percent * 10_000, ..normal };
                (link, format!("{percent} of a hundred packets are lost"))
            }
            "twice" => {
                let link = LinkQuality { duplicate_ppm: 400_000, jitter_us: 5_000, ..normal };
                // The jitter reorders the copies: without it a duplicate follows its original at
                // once.
                (link, "40 of a hundred packets arrive twice, up to 5 ms late".to_owned())
            }
            _ => {
                let link = LinkQuality { bytes_per_second: 125_000, ..normal };
                (link, "one megabit a second in each direction".to_owned())
            }
        };
        self.cluster.network()?.set_all(link)?;
        Ok(self.injected(self.cluster.ids(), description))
    }
}
