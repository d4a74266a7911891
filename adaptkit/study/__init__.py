"""What a study is: its config, arms, budget and results, and what follows from them: statistics, forecast,
verdict."""
