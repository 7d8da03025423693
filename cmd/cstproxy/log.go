package main

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logOptions are the flags of a command that logs.
type logOptions struct {
	format string // "json" or "console"
	level  string
}

// newLogger writes to standard error. Nothing is sampled: a decision that is logged once must not
// be dropped because a chatty line stood before it.
func newLogger(o logOptions) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(o.level)
	if err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", o.level)
	}
	cfg := zap.NewProductionConfig()
	switch o.format {
	case "json":
	case "console":
		cfg.Encoding = "console"
		cfg.DisableCaller = true
		cfg.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	default:
		return nil, usagef("--log-format %q: want json or console", o.format)
	}
	cfg.Sampling = nil
	cfg.DisableStacktrace = level > zapcore.DebugLevel
	cfg.Level = zap.NewAtomicLevelAt(level)
	cfg.EncoderConfig.TimeKey = "time"
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	return cfg.Build()
}
