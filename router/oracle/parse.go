package oracle

/*
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include <stdlib.h>

// Declared as in pg_query.h of the module pg_query_go, whose package links the definitions and
// whose Go functions do not take options.
typedef struct { char *message, *funcname, *filename; int lineno, cursorpos; char *context; } parseError;
typedef struct { size_t len; char *data; } parseTree;
typedef struct { parseTree tree; char *stderr_buffer; parseError *error; } parseResult;
parseResult pg_query_parse_protobuf_opts(const char *input, int options);
void pg_query_free_protobuf_parse_result(parseResult result);
*/
import "C"

import (
	"errors"
	"strings"
	"unsafe"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// Strings is how a backslash in '…' is read.
type Strings int

const (
	// Standard is standard_conforming_strings = on.
	Standard Strings = iota
	// Escape is standard_conforming_strings = off.
	Escape
)

// disableStandardStrings is PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS of pg_query.h.
const disableStandardStrings = 32

// errZero: a text ends at its first zero byte, in C and in PostgreSQL's protocol.
var errZero = errors.New("text has a zero byte")

// Parse returns the parse tree of a text; an error means that a server refuses the text, too.
func Parse(text string, s Strings) (*pg_query.ParseResult, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errZero
	}
	options := C.int(0)
	if s == Escape {
		options = disableStandardStrings
	}
	in := C.CString(text)
	defer C.free(unsafe.Pointer(in))
	out := C.pg_query_parse_protobuf_opts(in, options)
	defer C.pg_query_free_protobuf_parse_result(out)
	if out.error != nil {
		return nil, errors.New(C.GoString(out.error.message))
	}
	tree := &pg_query.ParseResult{}
	if err := proto.Unmarshal(C.GoBytes(unsafe.Pointer(out.tree.data), C.int(out.tree.len)), tree); err != nil {
		return nil, err
	}
	return tree, nil
}
