"""The service in a guest for a long time, amid workers that come and go."""
