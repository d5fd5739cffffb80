"""What pools and items do: life cycle, crash safety, jobs, access, events.

Runs on trio; blocking storage work goes to threads. Knows neither FUSE nor a particular storage.
"""
