CREATE NAMESPACE IF NOT EXISTS nyc;

CREATE SHARED TABLE nyc.airlines (
    carrier TEXT PRIMARY KEY,
    name    TEXT NOT NULL
);

CREATE SHARED TABLE nyc.airports (
    faa   TEXT PRIMARY KEY,
    name  TEXT NOT NULL,
    lat   DOUBLE NOT NULL,
    lon   DOUBLE NOT NULL,
    alt   INT NOT NULL,
    tz    SMALLINT NOT NULL,
    dst   TEXT NOT NULL,
    tzone TEXT
);

CREATE SHARED TABLE nyc.planes (
    tailnum      TEXT PRIMARY KEY,
    year         SMALLINT,
    type         TEXT NOT NULL,
    manufacturer TEXT NOT NULL,
    model        TEXT NOT NULL,
    engines      SMALLINT NOT NULL,
    seats        SMALLINT NOT NULL,
    speed        SMALLINT,
    engine       TEXT NOT NULL
);

CREATE SHARED TABLE nyc.weather (
    origin     TEXT NOT NULL,
    year       SMALLINT NOT NULL,
    month      SMALLINT NOT NULL,
    day        SMALLINT NOT NULL,
    hour       SMALLINT NOT NULL,
    temp       DOUBLE,
    dewp       DOUBLE,
    humid      DOUBLE,
    wind_dir   SMALLINT,
    wind_speed DOUBLE,
    wind_gust  DOUBLE,
    precip     DOUBLE NOT NULL,
    pressure   DOUBLE,
    visib      DOUBLE NOT NULL,
    time_hour  DATETIME NOT NULL,
    PRIMARY KEY (origin, time_hour)
);

CREATE SHARED TABLE nyc.flights (
    year           SMALLINT NOT NULL,
    month          SMALLINT NOT NULL,
    day            SMALLINT NOT NULL,
    dep_time       SMALLINT,
    sched_dep_time SMALLINT NOT NULL,
    dep_delay      SMALLINT,
    arr_time       SMALLINT,
    sched_arr_time SMALLINT NOT NULL,
    arr_delay      SMALLINT,
    carrier        TEXT NOT NULL,
    flight         INT NOT NULL,
    tailnum        TEXT,
    origin         TEXT NOT NULL,
    dest           TEXT NOT NULL,
    air_time       SMALLINT,
    distance       INT NOT NULL,
    hour           SMALLINT NOT NULL,
    minute         SMALLINT NOT NULL,
    time_hour      DATETIME NOT NULL,
    PRIMARY KEY (time_hour, origin, carrier, flight)
);
