-- 1. How many flights left each airport, how many were cancelled, and how late were the others on average?
SELECT a.name AS airport,
       count(*) AS flights,
       count(*) FILTER (WHERE f.dep_time IS NULL) AS cancelled,
       round(avg(f.dep_delay), 2) AS mean_delay
FROM nyc.flights AS f
JOIN nyc.airports AS a ON a.faa = f.origin
GROUP BY a.name
ORDER BY flights DESC, airport;

-- 2. Which airlines arrive on time (at most a quarter of an hour late)?
SELECT l.name AS airline,
       count(f.arr_delay) AS arrivals,
       round(100.0 * count(*) FILTER (WHERE f.arr_delay <= 15) / count(f.arr_delay), 1) AS on_time_percent,
       max(f.arr_delay) AS worst_minutes
FROM nyc.flights AS f
JOIN nyc.airlines AS l USING (carrier)
GROUP BY l.name
ORDER BY on_time_percent DESC, airline;

-- 3. What are the ten busiest routes, and how fast are they flown?
SELECT f.origin,
       f.dest,
       a.name AS destination,
       count(*) AS flights,
       sum(f.distance) AS miles,
       round(avg(f.distance * 60.0 / f.air_time), 1) AS miles_an_hour
FROM nyc.flights AS f
LEFT JOIN nyc.airports AS a ON a.faa = f.dest
GROUP BY f.origin, f.dest, a.name
ORDER BY flights DESC, f.origin, f.dest
LIMIT 10;

-- 4. On which day of each month did flights leave latest?
WITH days AS (
    SELECT month, make_date(year, month, day) AS date, avg(dep_delay) AS mean_delay, count(*) AS flights
    FROM nyc.flights
    GROUP BY year, month, day
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY month ORDER BY mean_delay DESC, date) AS place
    FROM days
)
SELECT date, flights, round(mean_delay, 1) AS mean_delay
FROM ranked
WHERE place = 1
ORDER BY date;

-- 5. How do delays build up in the course of a day?
SELECT hour,
       count(*) AS flights,
       median(dep_delay) AS median_delay,
       quantile_cont(dep_delay, 0.9) AS ninth_decile
FROM nyc.flights
GROUP BY hour
HAVING count(*) > 100
ORDER BY hour;

-- 6. Does bad sight hold flights back?
SELECT CASE WHEN w.visib < 1 THEN 'under 1 mile'
            WHEN w.visib < 5 THEN '1 to 5 miles'
            WHEN w.visib < 10 THEN '5 to 10 miles'
            ELSE '10 miles' END AS sight,
       count(*) AS flights,
       round(avg(f.dep_delay), 1) AS mean_delay,
       round(100.0 * count(*) FILTER (WHERE f.dep_time IS NULL) / count(*), 2) AS cancelled_percent
FROM nyc.flights AS f
JOIN nyc.weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
GROUP BY sight
ORDER BY min(w.visib);

-- 7. Which ten planes flew the most miles, and how old were they?
WITH flown AS (
    SELECT tailnum, count(*) AS flights, sum(distance) AS miles, max(year) AS seen
    FROM nyc.flights
    WHERE air_time IS NOT NULL
    GROUP BY tailnum
)
SELECT flown.tailnum, p.manufacturer, p.model, flown.seen - p.year AS age, flown.flights, flown.miles
FROM flown
LEFT JOIN nyc.planes AS p ON p.tailnum = flown.tailnum
ORDER BY flown.miles DESC, flown.tailnum
LIMIT 10;

-- 8. Which destinations does the list of airports not know?
SELECT dest, count(*) AS flights, count(DISTINCT carrier) AS airlines, min(time_hour) AS first_departure
FROM nyc.flights AS f
WHERE NOT EXISTS (SELECT 1 FROM nyc.airports AS a WHERE a.faa = f.dest)
GROUP BY dest
ORDER BY flights DESC, dest;

-- 9. Which days stand out most from the mean of the week around them?
WITH daily AS (
    SELECT make_date(year, month, day) AS date, count(dep_time) AS departures
    FROM nyc.flights
    GROUP BY year, month, day
),
smoothed AS (
    SELECT date,
           departures,
           avg(departures) OVER (ORDER BY date ROWS BETWEEN 3 PRECEDING AND 3 FOLLOWING) AS around,
           lag(departures) OVER (ORDER BY date) AS day_before
    FROM daily
)
SELECT date, departures, day_before, round(around, 1) AS around, round(departures - around, 1) AS difference
FROM smoothed
ORDER BY abs(departures - around) DESC, date
LIMIT 10;

-- 10. What were the longest runs of days on which an airline cancelled a twentieth of its flights or more?
WITH days AS (
    SELECT carrier,
           make_date(year, month, day) AS date,
           count(*) FILTER (WHERE dep_time IS NULL) AS cancelled,
           count(*) AS flights
    FROM nyc.flights
    GROUP BY carrier, year, month, day
),
bad AS (
    SELECT carrier, date, cancelled,
           date - CAST(row_number() OVER (PARTITION BY carrier ORDER BY date) AS INTEGER) AS run
    FROM days
    WHERE cancelled * 20 >= flights
),
runs AS (
    SELECT carrier, min(date) AS first_day, max(date) AS last_day, count(*) AS days, sum(cancelled) AS cancelled
    FROM bad
    GROUP BY carrier, run
)
SELECT l.name AS airline, runs.first_day, runs.last_day, runs.days, runs.cancelled
FROM runs
JOIN nyc.airlines AS l USING (carrier)
ORDER BY runs.days DESC, runs.cancelled DESC, airline, runs.first_day
LIMIT 10;
