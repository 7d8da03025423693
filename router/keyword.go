package router

import "strings"

// keyword is one of PostgreSQL's key words, as far as the classifier has to know it.
type keyword uint16

// The key words in the four classes of PostgreSQL's grammar: reserved ones name nothing (except
// after AS or a dot), those of the second class may name functions and types but no columns or
// aliases, those of the third columns and aliases but no functions, the others everything. The
// order is that of the words below.
const (
	kwNone keyword = iota
	kwAll
	kwAnalyse
	kwAnalyze
	kwAnd
	kwAny
	kwArray
	kwAs
	kwAsc
	kwAsymmetric
	kwBoth
	kwCase
	kwCast
	kwCheck
	kwCollate
	kwColumn
	kwConstraint
	kwCreate
	kwCurrentCatalog
	kwCurrentDate
	kwCurrentRole
	kwCurrentTime
	kwCurrentTimestamp
	kwCurrentUser
	kwDefault
	kwDeferrable
	kwDesc
	kwDistinct
	kwDo
	kwElse
	kwEnd
	kwExcept
	kwFalse
	kwFetch
	kwFor
	kwForeign
	kwFrom
	kwGrant
	kwGroup
	kwHaving
	kwIn
	kwInitially
	kwIntersect
	kwInto
	kwLateral
	kwLeading
	kwLimit
	kwLocaltime
	kwLocaltimestamp
	kwNot
	kwNull
	kwOffset
	kwOn
	kwOnly
	kwOr
	kwOrder
	kwPlacing
	kwPrimary
	kwReferences
	kwReturning
	kwSelect
	kwSessionUser
	kwSome
	kwSymmetric
	kwSystemUser
	kwTable
	kwThen
	kwTo
	kwTrailing
	kwTrue
	kwUnion
	kwUnique
	kwUser
	kwUsing
	kwVariadic
	kwWhen
	kwWhere
	kwWindow
	kwWith
	kwAuthorization
	kwBinary
	kwCollation
	kwConcurrently
	kwCross
	kwCurrentSchema
	kwFreeze
	kwFull
	kwIlike
	kwInner
	kwIs
	kwIsnull
	kwJoin
	kwLeft
	kwLike
	kwNatural
	kwNotnull
	kwOuter
	kwOverlaps
	kwRight
	kwSimilar
	kwTablesample
	kwVerbose
	kwBetween
	kwBigint
	kwBit
	kwBoolean
	kwChar
	kwCharacter
	kwCoalesce
	kwDec
	kwDecimal
	kwExists
	kwExtract
	kwFloat
	kwGreatest
	kwGrouping
	kwInout
	kwInt
	kwInteger
	kwInterval
	kwJson
	kwJsonArray
	kwJsonArrayagg
	kwJsonExists
	kwJsonObject
	kwJsonObjectagg
	kwJsonQuery
	kwJsonScalar
	kwJsonSerialize
	kwJsonTable
	kwJsonValue
	kwLeast
	kwMergeAction
	kwNational
	kwNchar
	kwNoneWord
	kwNormalize
	kwNullif
	kwNumeric
	kwOut
	kwOverlay
	kwPosition
	kwPrecision
	kwReal
	kwRow
	kwSetof
	kwSmallint
	kwSubstring
	kwTime
	kwTimestamp
	kwTreat
	kwTrim
	kwValues
	kwVarchar
	kwXmlattributes
	kwXmlconcat
	kwXmlelement
	kwXmlexists
	kwXmlforest
	kwXmlnamespaces
	kwXmlparse
	kwXmlpi
	kwXmlroot
	kwXmlserialize
	kwXmltable
	kwAbort
	kwAbsolute
	kwAlter
	kwAt
	kwAtomic
	kwBegin
	kwBy
	kwCall
	kwChain
	kwCharacteristics
	kwCheckpoint
	kwClose
	kwCluster
	kwColumns
	kwComment
	kwCommit
	kwCommitted
	kwConstraints
	kwCopy
	kwCube
	kwCursor
	kwCycle
	kwDeallocate
	kwDeclare
	kwDelete
	kwDiscard
	kwDrop
	kwEscape
	kwExecute
	kwExplain
	kwFilter
	kwFirst
	kwFunction
	kwGlobal
	kwGroups
	kwHold
	kwImport
	kwInsert
	kwIsolation
	kwKey
	kwLast
	kwLevel
	kwListen
	kwLoad
	kwLocal
	kwLock
	kwMaterialized
	kwMerge
	kwMove
	kwNames
	kwNext
	kwNo
	kwNotify
	kwOf
	kwOperator
	kwOrdinality
	kwOver
	kwPartition
	kwPassing
	kwPlans
	kwPrepare
	kwPrepared
	kwProcedure
	kwProgram
	kwRange
	kwRead
	kwReassign
	kwRecursive
	kwRefresh
	kwReindex
	kwRelease
	kwRepeatable
	kwReplace
	kwReset
	kwRevoke
	kwRole
	kwRollback
	kwRollup
	kwRows
	kwSavepoint
	kwSchema
	kwScroll
	kwSearch
	kwSecurity
	kwSequences
	kwSerializable
	kwSession
	kwSet
	kwSets
	kwShare
	kwShow
	kwSnapshot
	kwStart
	kwStdin
	kwStdout
	kwTemp
	kwTemporary
	kwTies
	kwTransaction
	kwTruncate
	kwUescape
	kwUncommitted
	kwUnlisten
	kwUnlogged
	kwUpdate
	kwVacuum
	kwVarying
	kwWithin
	kwWithout
	kwWork
	kwWrite
	kwXml
	kwZone
)

// The last key word of each class.
const (
	kwLastReserved = kwWith
	kwLastFunction = kwVerbose
	kwLastColumn   = kwXmltable
)

const (
	reservedWords = `all analyse analyze and any array as asc asymmetric both case cast check collate column constraint
create current_catalog current_date current_role current_time current_timestamp current_user default
deferrable desc distinct do else end except false fetch for foreign from grant group having in
initially intersect into lateral leading limit localtime localtimestamp not null offset on only or
order placing primary references returning select session_user some symmetric system_user table then
to trailing true union unique user using variadic when where window with`
	functionWords = `authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull
join left like natural notnull outer overlaps right similar tablesample verbose`
	columnWords = `between bigint bit boolean char character coalesce dec decimal exists extract float greatest
grouping inout int integer interval json json_array json_arrayagg json_exists json_object
json_objectagg json_query json_scalar json_serialize json_table json_value least merge_action
national nchar none normalize nullif numeric out overlay position precision real row setof smallint
substring time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement xmlexists
xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`
	otherWords = `abort absolute alter at atomic begin by call chain characteristics checkpoint close cluster columns
comment commit committed constraints copy cube cursor cycle deallocate declare delete discard drop
escape execute explain filter first function global groups hold import insert isolation key last
level listen load local lock materialized merge move names next no notify of operator ordinality
over partition passing plans prepare prepared procedure program range read reassign recursive
refresh reindex release repeatable replace reset revoke role rollback rollup rows savepoint schema
scroll search security sequences serializable session set sets share show snapshot start stdin
stdout temp temporary ties transaction truncate uescape uncommitted unlisten unlogged update vacuum varying
within without work write xml zone`
)

// reserved says whether the word can name nothing at all.
func (k keyword) reserved() bool { return k != kwNone && k <= kwLastReserved }

// construct says whether the word before a parenthesis is usually no call of a function.
func (k keyword) construct() bool { return k > kwLastReserved && k <= kwLastColumn }

// alias says whether the word may be an alias that stands without AS in FROM.
func (k keyword) alias() bool { return k == kwNone || k > kwLastFunction }

// keywordSlots is the size of the table of key words: a power of two, mostly empty.
const keywordSlots = 2048

type keywordSlot struct {
	word string
	kw   keyword
}

// keywords is a table with open addressing, by keywordHash.
var keywords = func() (t [keywordSlots]keywordSlot) {
	all := reservedWords + " " + functionWords + " " + columnWords + " " + otherWords
	for i, word := range strings.Fields(all) {
		h := keywordHash([]byte(word))
		for t[h].word != "" {
			h = (h + 1) % keywordSlots
		}
		t[h] = keywordSlot{word, keyword(i + 1)}
	}
	return t
}()

// keywordHash mixes the length and three letters of a word that is not empty.
func keywordHash(b []byte) uint {
	n := uint(len(b))
	return (uint(b[0])*31 + uint(b[n-1])*173 + uint(b[n/2])*389 + n*59) % keywordSlots
}

// keywordOf finds the key word that b, in lower case, is; kwNone for all other words.
func keywordOf(b []byte) keyword {
	for h := keywordHash(b); ; h = (h + 1) % keywordSlots {
		s := &keywords[h]
		if s.word == "" {
			return kwNone
		}
		if s.word == string(b) {
			return s.kw
		}
	}
}
