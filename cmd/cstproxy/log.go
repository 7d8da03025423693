package main

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cstproxy/cstproxy/admin"
)

// logOptions are the flags of a command that logs.
type logOptions struct {
	format string // "json" or "console"
	level  string
}

// keptLines is how many of the last lines `ctl log` can show.
const keptLines = 2000

// newLogger writes to standard error, and keeps the last lines. Nothing is sampled: a decision that is
// logged once must not be dropped because a chatty line stood before it.
func newLogger(o logOptions) (*zap.Logger, *admin.Ring, error) {
	level, err := zapcore.ParseLevel(o.level)
	if err != nil {
		return nil, nil, usagef("--log-level %q: want debug, info, warn or error", o.level)
	}
	cfg := zap.NewProductionConfig()
	switch o.format {
	case "json":
	case "console":
		cfg.Encoding = "console"
		cfg.DisableCaller = true
		cfg.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	default:
		return nil, nil, usagef("--log-format %q: want json or console", o.format)
	}
	cfg.Sampling = nil
	cfg.DisableStacktrace = level > zapcore.DebugLevel
	cfg.Level = zap.NewAtomicLevelAt(level)
	cfg.EncoderConfig.TimeKey = "time"
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	plain := cfg.EncoderConfig
	plain.EncodeLevel = zapcore.CapitalLevelEncoder
	ring := admin.NewRing(keptLines, level, zapcore.NewConsoleEncoder(plain))
	log, err := cfg.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return zapcore.NewTee(core, ring) }))
	return log, ring, err
}
