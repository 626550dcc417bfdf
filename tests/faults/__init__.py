"""The promises about money, kept under kill -9: at named points, at random, and with parts that hang."""
