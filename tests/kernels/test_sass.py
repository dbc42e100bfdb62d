"""The scan of machine code that tests/kernels/test_aot.py relies on."""

import pytest
from sass import instructions, overwritten_factors, products_from_registers

LOOP = """
        /*0100*/                   WARPGROUP.ARRIVE ;  /* 0x00000000000079c5 */
        /*0110*/                   HGMMA.64x32x16.F32.BF16 R24, R56, gdesc[UR4], R24 ;
        /*0120*/                   HGMMA.64x32x16.F32.BF16 R24, R60, gdesc[UR8], R24, gsb0 ;
{first}
        /*0140*/              @!P0 BRA {target} ;
{second}
        /*0160*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0170*/                   MOV R56, R7 ;
        /*0180*/                   EXIT ;
"""


def loop(first="NOP", second="NOP", target="0x100"):
    """Two products from registers in a loop, and an instruction in it and behind it."""
    first, second = (
        f"        /*{address}*/                   {text} ;"
        for address, text in (("0130", first), ("0150", second))
    )
    return LOOP.format(first=first, second=second, target=target)


def test_a_loop_that_waits_is_fine():
    text = loop(first="WARPGROUP.DEPBAR.LE gsb0, 0x0")
    assert overwritten_factors(text) == []
    assert products_from_registers(text) == 2
    assert len(instructions(text)) == 9


@pytest.mark.parametrize(
    "instruction",
    [
        "FADD R56, R1, -R2.reuse",
        "LDS.128 R60, [R96]",
        "F2FP.BF16.F32.PACK_AB R63, R1, R2",
        "IMAD.WIDE.U32 R54, R1, 0x2, R2",
        "LDS.64 R62, [R96+0x10]",
        "LDSM.16.M88.4 R52, [R3]",
        "IADD3 R59, P0, R1, R2, RZ",
        "SHFL.BFLY PT, R57, R2, 0x1, 0x1f",
        "HGMMA.64x32x16.F32.BF16 R48, gdesc[UR4], R48, gsb0",
    ],
)
@pytest.mark.parametrize("place", ["first", "second"])
def test_a_factor_that_is_overwritten_before_the_wait_is_found(instruction, place):
    wide = {"LDSM.16.M88.4 R52, [R3]", "IMAD.WIDE.U32 R54, R1, 0x2, R2"}
    found = overwritten_factors(loop(**{place: instruction}))
    if instruction in wide:  # their results end one register before
        assert found == []
    else:
        assert [line.split(" ", 1)[1] for line in found] == [instruction]


@pytest.mark.parametrize(
    "instruction",
    [
        "FADD R64, R56, R60",
        "STG.E.128 desc[UR6][R56.64], R60",
        "ISETP.GE.AND P0, PT, R56, R60, PT",
        "R2UR UR4, R56",
        "UMOV UR56, 0x1",
        "ATOMS.ADD RZ, [R56], R60",
    ],
)
def test_reading_a_factor_is_fine(instruction):
    assert overwritten_factors(loop(first=instruction)) == []


def test_the_next_round_is_looked_at():
    # the branch goes to where the first product's factor is made
    text = loop(target="0x0f0").replace(
        "        /*0100*/", "        /*00f0*/                   MOV R60, R5 ;\n        /*0100*/"
    )
    assert [line.split(" ", 1)[1] for line in overwritten_factors(text)] == ["MOV R60, R5"]


def test_a_wait_that_leaves_one_group_covers_those_before_it():
    wait = "WARPGROUP.DEPBAR.LE gsb0, 0x1"
    text = loop(first=wait, second="MOV R60, R5")
    # the last group may be the one that holds it
    assert len(overwritten_factors(text)) == 1
    product = "HGMMA.64x32x16.F32.BF16 R24, R40, gdesc[UR4], R24, gsb0"
    later = f"        /*0128*/                   {product} ;\n        /*0130*/"
    text = text.replace("        /*0130*/", later)
    assert overwritten_factors(text) == []
