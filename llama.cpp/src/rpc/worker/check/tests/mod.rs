mod capture;
mod units;
