"""Never ends: the time limit must end it."""

count = 0
while True:
    count += 1
