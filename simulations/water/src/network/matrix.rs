//! Linear equations with a symmetric positive definite matrix: the heads of one Newton step.

/// The matrix is not positive definite: this row's node hangs on nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Singular {
    pub(super) row: usize,
}

/// A dense symmetric matrix, its lower half by rows. Dense because a hundred nodes take a tenth of a millisecond;
/// thousands would want a sparse one.
#[derive(Debug, Clone)]
pub(super) struct Symmetric {
    size: usize,
    lower: Vec<f64>,
}

impl Symmetric {
    pub(super) fn zero(size: usize) -> Self {
        Self { size, lower: vec![0.0; size * (size + 1) / 2] }
    }

    pub(super) fn add(&mut self, row: usize, column: usize, value: f64) {
        let (row, column) = (row.max(column), row.min(column));
        self.lower[row * (row + 1) / 2 + column] += value;
    }

    /// Solves `A·x = b` by Cholesky's factorisation; `b` becomes `x`.
    pub(super) fn solve(mut self, b: &mut [f64]) -> Result<(), Singular> {
        self.factorise()?;
        for row in 0..self.size {
            let known = dot(self.row(row), b, row);
            b[row] = (b[row] - known) / self.diagonal(row);
        }
        for row in (0..self.size).rev() {
            b[row] /= self.diagonal(row);
            let x = b[row];
            for (target, factor) in b.iter_mut().zip(&self.row(row)[..row]) {
                *target -= factor * x;
            }
        }
        Ok(())
    }

    /// `A` becomes `L` of `A = L·Lᵀ`.
    fn factorise(&mut self) -> Result<(), Singular> {
        for row in 0..self.size {
            let (above, rest) = self.lower.split_at_mut(row * (row + 1) / 2);
            let current = &mut rest[..=row];
            for column in 0..row {
                let other = &above[column * (column + 1) / 2..][..=column];
                current[column] = (current[column] - dot(other, current, column)) / other[column];
            }
            let left = current[row] - dot(current, current, row);
            if left.is_nan() || left <= 0.0 {
                return Err(Singular { row });
            }
            current[row] = left.sqrt();
        }
        Ok(())
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.lower[row * (row + 1) / 2..][..=row]
    }

    fn diagonal(&self, row: usize) -> f64 {
        self.lower[row * (row + 1) / 2 + row]
    }
}

/// Product of the first `count` elements.
fn dot(a: &[f64], b: &[f64], count: usize) -> f64 {
    a[..count].iter().zip(&b[..count]).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    #[test]
    fn what_is_solved_gives_the_right_hand_side_again() {
        let size = 30;
        let mut noise = Noise::new(5);
        let (mut a, mut full) = (Symmetric::zero(size), vec![vec![0.0; size]; size]);
        // Conductances between all pairs, and one to the ground: a network's matrix.
        for row in 0..size {
            for column in 0..row {
                let p = noise.normal().abs();
                for (i, j, v) in [(row, row, p), (column, column, p), (row, column, -p)] {
                    a.add(i, j, v);
                    full[i][j] += v;
                }
                full[column][row] -= p;
            }
        }
        a.add(0, 0, 1.0);
        full[0][0] += 1.0;
        let b: Vec<f64> = (0..size).map(|_| noise.normal()).collect();
        let mut x = b.clone();
        a.solve(&mut x).unwrap();
        for (row, wanted) in full.iter().zip(&b) {
            assert!((dot(row, &x, size) - wanted).abs() < 1e-10);
        }
    }

    #[test]
    fn a_node_that_hangs_on_nothing_is_named() {
        let mut a = Symmetric::zero(2);
        a.add(0, 0, 1.0);
        assert_eq!(a.solve(&mut [1.0, 1.0]), Err(Singular { row: 1 }));
    }
}
