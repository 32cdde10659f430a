//! Whether ranks agree, are well, or were asked to stop.

use super::{Exchange, each_rank, place};
use anyhow::{Context, Result};

/// What each rank has to say, in their order.
///
/// # Errors
/// If a rank is gone.
pub fn gather_texts(exchange: &dyn Exchange, own: &str) -> Result<Vec<String>> {
    let mut ends: Vec<u64> = each_rank(exchange, &[own.len() as u64])?;
    for rank in 1..ends.len() {
        ends[rank] += ends[rank - 1];
    }
    let ends: Vec<usize> = ends.into_iter().map(usize::try_from).collect::<Result<_, _>>()?;
    let mut all = vec![0; ends[ends.len() - 1]];
    all[place(&ends, exchange.rank())].copy_from_slice(own.as_bytes());
    exchange.gather(&mut all, &ends)?;
    let text = |rank| String::from_utf8(all[place(&ends, rank)].to_vec());
    (0..ends.len()).map(|rank| text(rank).with_context(|| format!("rank {rank} sent no text"))).collect()
}

/// The outcome of this rank, if all ranks are well.
///
/// # Errors
/// With this rank's own error, or the first other rank's and its number, so that none goes on alone.
pub fn all_well<T>(exchange: &dyn Exchange, own: Result<T>) -> Result<T> {
    if exchange.ranks() == 1 {
        return own;
    }
    let text = own.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
    let others = gather_texts(exchange, &text)?;
    let value = own?;
    match others.iter().position(|text| !text.is_empty()) {
        Some(rank) => anyhow::bail!("rank {rank}: {}", others[rank]),
        None => Ok(value),
    }
}

/// Refuses ranks that differ.
///
/// # Errors
/// With what differs, and the first two that do.
pub fn all_same(exchange: &dyn Exchange, what: &str, own: &str) -> Result<()> {
    let all = gather_texts(exchange, own)?;
    match all.iter().position(|text| *text != all[0]) {
        Some(rank) => anyhow::bail!("{what} differs: rank 0 has {}, rank {rank} has {}", all[0], all[rank]),
        None => Ok(()),
    }
}

/// The sum of a number of all ranks.
///
/// # Errors
/// If a rank is gone.
pub fn total(exchange: &dyn Exchange, own: u64) -> Result<u64> {
    Ok(each_rank(exchange, &[own])?.into_iter().sum())
}

/// Whether any rank says so.
///
/// # Errors
/// If a rank is gone.
pub fn any_says(exchange: &dyn Exchange, own: bool) -> Result<bool> {
    if exchange.ranks() == 1 {
        return Ok(own);
    }
    Ok(total(exchange, u64::from(own))? > 0)
}

#[cfg(test)]
mod tests {
    use super::super::on_threads;
    use super::*;

    #[test]
    fn ranks_agree_or_say_how_they_differ() {
        on_threads(3, |exchange| {
            let rank = exchange.rank();
            let exchange = &*exchange;
            assert_eq!(total(exchange, 10 + rank as u64).unwrap(), 33);
            assert!(!any_says(exchange, false).unwrap() && any_says(exchange, rank == 1).unwrap());
            assert_eq!(all_well(exchange, Ok(rank)).unwrap(), rank);
            let own = if rank == 2 { Err(anyhow::anyhow!("no such file")) } else { Ok(()) };
            let told = all_well(exchange, own).unwrap_err().to_string();
            assert_eq!(told, if rank == 2 { "no such file" } else { "rank 2: no such file" });
            all_same(exchange, "the version", "1").unwrap();
            let told = all_same(exchange, "the version", if rank == 1 { "2" } else { "1" }).unwrap_err().to_string();
            assert_eq!(told, "the version differs: rank 0 has 1, rank 1 has 2");
        });
    }
}
