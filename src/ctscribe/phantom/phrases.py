"""Sentences of synthetic reports: stock sentences, and ways to state each finding.

Every group is a tuple of (share, sentence). One sentence dominates, as in real reports.
"""

Choices = tuple[tuple[float, str], ...]

NORMAL: dict[str, Choices] = {
    "airway": (
        (0.80, "The trachea and both main bronchi are open."),
        (0.13, "Trachea and main bronchi are patent, with no obstructing lesion in the lumen."),
        (0.07, "The central airways are in the midline and open."),
    ),
    "contrast": (
        (0.85, "Evaluation of the mediastinum is limited because no contrast agent was given."),
        (0.15, "Without contrast agent, mediastinal structures are judged with reserve."),
    ),
    "heart": (
        (0.80, "The heart and the great mediastinal vessels are normal in size and contour."),
        (0.14, "Heart size is normal and the calibre of the large vessels is preserved."),
        (0.06, "Heart contour and size are natural, as are the diameters of the great vessels."),
    ),
    "vessels": (
        (0.85, "The calibre of the great mediastinal vessels is normal."),
        (0.15, "Diameters of the thoracic aorta and the pulmonary trunk are within normal limits."),
    ),
    "both effusions": (
        (0.78, "No pleural or pericardial effusion is seen."),
        (0.15, "Pleural effusion and pericardial effusion were not detected."),
        (0.07, "There is no fluid in the pleural or pericardial space."),
    ),
    "pericardium": (
        (0.85, "No pericardial effusion is seen."),
        (0.15, "Pericardial effusion was not detected."),
    ),
    "pleura": (
        (0.85, "No pleural effusion is seen."),
        (0.15, "Pleural effusion was not detected on either side."),
    ),
    "oesophagus": (
        (0.82, "The oesophagus has a normal calibre and wall."),
        (0.12, "No wall thickening is seen along the thoracic oesophagus."),
        (0.06, "Calibre of the oesophagus is natural and there is no hiatal hernia."),
    ),
    "nodes": (
        (0.80, "No enlarged lymph nodes are seen in the mediastinum, hila or axillae."),
        (
            0.13,
            "Mediastinal, hilar and axillary lymph nodes of pathological size were not detected.",
        ),
        (0.07, "There is no lymphadenopathy."),
    ),
    "lungs": (
        (0.80, "In the lung window, aeration of both lungs is normal."),
        (0.14, "When examined in the parenchyma window, both lungs are well aerated."),
        (0.06, "Both lungs are fully expanded and normally aerated."),
    ),
    "abdomen": (
        (0.80, "The upper abdominal organs in the section are normal."),
        (0.14, "No abnormality is seen in the included part of the upper abdomen."),
        (0.06, "Liver, spleen and adrenal glands are natural as far as they are imaged."),
    ),
    "bones": (
        (0.80, "Bone structures are natural and vertebral heights are preserved."),
        (0.14, "No lytic or destructive lesion is seen in the bones."),
        (0.06, "Vertebral corpus heights are preserved."),
    ),
}

DENIED: dict[str, str] = {
    "Lung nodule": "nodule",
    "Consolidation": "consolidation",
    "Lung opacity": "ground-glass density",
    "Bronchiectasis": "bronchiectasis",
    "Atelectasis": "atelectasis",
}
"""Finding → the word for it in a sentence that denies it."""

STATED: dict[str, Choices] = {
    "pacemaker": (
        (
            0.8,
            "A pacemaker is seen in the left chest wall, its lead ending in the right ventricle.",
        ),
        (0.2, "There is a left-sided pacemaker with a lead in the right heart."),
    ),
    "port": (
        (0.8, "A port catheter extends from the right chest wall to the superior vena cava."),
        (
            0.2,
            "There is a right-sided venous port with its tip in the superior vena cava.",
        ),
    ),
    "central line": (
        (
            0.8,
            "A central venous catheter from the right jugular vein ends in the superior vena cava.",
        ),
        (0.2, "The tip of a right jugular catheter is seen in the superior vena cava."),
    ),
    "sternal wires": (
        (0.8, "Metallic sutures of a previous sternotomy are seen in the sternum."),
        (0.2, "Sternotomy wires are present in the midline."),
    ),
    "clips": (
        (0.8, "Surgical clips are seen next to the {side} hilum."),
        (0.2, "There are metallic surgical clips around the {side} hilum."),
    ),
    "feeding tube": (
        (0.8, "A nasogastric tube passes through the oesophagus into the stomach."),
        (0.2, "There is a nasogastric tube whose tip lies in the stomach."),
    ),
    "tracheal tube": (
        (0.8, "An endotracheal tube ends above the carina."),
        (0.2, "The patient is intubated and the endotracheal tube lies in the trachea."),
    ),
    "Arterial wall calcification": (
        (0.7, "Calcified atheromatous plaques are seen in the wall of the {site}."),
        (0.2, "There are wall calcifications in the {site}."),
        (0.1, "Atherosclerotic calcifications accompany the {site}."),
    ),
    "Cardiomegaly": (
        (0.7, "The heart is enlarged, with a transverse diameter of {size} mm."),
        (0.2, "The cardiothoracic ratio is increased in favour of the heart."),
        (0.1, "There is cardiomegaly."),
    ),
    "Pericardial effusion": (
        (0.7, "Pericardial effusion measuring {size} mm in its thickest part is seen."),
        (0.2, "There is fluid of {size} mm in the pericardial space."),
        (0.1, "{amount} pericardial effusion is present."),
    ),
    "Coronary artery wall calcification": (
        (0.7, "Calcification is seen in the {site}."),
        (0.2, "There are calcific plaques in the {site}."),
        (0.1, "Wall calcifications follow the {site}."),
    ),
    "Hiatal hernia": (
        (0.75, "A hiatal hernia of {size} mm is seen behind the heart."),
        (0.15, "There is a sliding hiatal hernia at the lower end of the oesophagus."),
        (0.10, "Part of the stomach lies above the diaphragm, consistent with hiatal hernia."),
    ),
    "one node": (
        (0.75, "{article} {site} lymph node measuring {size} x {short} mm is seen."),
        (0.25, "There is an enlarged lymph node of {size} mm at the {site} station."),
    ),
    "nodes": (
        (0.75, "Lymph nodes are seen at the {site} stations, the largest {size} x {short} mm."),
        (0.25, "There are several enlarged {site} lymph nodes, reaching {size} mm in long axis."),
    ),
    "centrilobular": (
        (0.75, "Centrilobular emphysema is seen in the upper lobes of both lungs."),
        (0.25, "There are emphysematous changes, most marked in both upper lobes."),
    ),
    "bullous": (
        (0.75, "Emphysema with bullae reaching {size} mm is seen in both upper lobes."),
        (
            0.25,
            "There are bullous emphysematous areas at both apices, the largest bulla {size} mm.",
        ),
    ),
    "Atelectasis": (
        (0.65, "Linear atelectasis is seen in {where}."),
        (0.20, "There is subsegmental atelectasis in {where}."),
        (0.15, "Plate-like atelectasis of {size} mm thickness is present in {where}."),
    ),
    "one nodule": (
        (0.60, "A{type} nodule of {size} mm is seen in {largest}."),
        (0.25, "There is a{type} nodule measuring {size} x {short} mm in {largest}."),
        (0.15, "In {largest}, a{type} nodule with a diameter of {size} mm is noted."),
    ),
    "nodules": (
        (0.60, "{count} nodules are seen in {lungs}, the largest {size} mm in {largest}."),
        (
            0.25,
            "There are {few} nodules in {lungs}, of which the largest, {size} mm, is in {largest}.",
        ),
        (0.15, "Nodules reaching {size} mm in diameter in {largest} are observed in {lungs}."),
    ),
    "small nodules": ((1.0, "Millimetric nodules are seen in {lungs}, the largest in {largest}."),),
    "Lung opacity": (
        (0.65, "Ground-glass density is seen in {where}."),
        (0.20, "There are patchy ground-glass opacities in {where}."),
        (0.15, "Ground-glass areas reaching {size} mm in extent are observed in {where}."),
    ),
    "apical": (
        (0.65, "Pleuroparenchymal sequelae are seen at {apex}."),
        (0.20, "There are fibrotic sequelae changes at {apex}."),
        (0.15, "Scarring with fibrotic strands is observed at {apex}."),
    ),
    "basal": (
        (0.65, "Fibrotic sequelae bands are seen in {where}."),
        (0.35, "There are parenchymal fibrotic bands in {where}."),
    ),
    "Pleural effusion": (
        (
            0.65,
            "{bilateral} pleural effusion with a thickness of {size} mm is seen{deeper}.",
        ),
        (0.20, "There is {lateral} pleural effusion reaching a thickness of {size} mm{deeper}."),
        (0.15, "Free pleural fluid reaching {size} mm is seen on {flank}."),
    ),
    "Mosaic attenuation pattern": (
        (0.75, "A mosaic attenuation pattern is seen in both lungs."),
        (0.25, "There is mosaic attenuation of the parenchyma on both sides."),
    ),
    "Peribronchial thickening": (
        (0.70, "Peribronchial thickening is seen in {lungs}."),
        (0.30, "There is peribronchial wall thickening in {lungs}."),
    ),
    "Consolidation": (
        (0.65, "Consolidation with air bronchograms is seen in {where}."),
        (0.20, "There is a consolidation of {size} mm in {where}."),
        (0.15, "A consolidated area that reaches the pleura is observed in {where}."),
    ),
    "Bronchiectasis": (
        (0.70, "Bronchiectasis is seen in {where}."),
        (0.20, "There are bronchiectatic changes in {where}."),
        (0.10, "Tubular bronchiectasis reaching {size} mm is observed in {where}."),
    ),
    "Interlobular septal thickening": (
        (0.70, "Interlobular septal thickening is seen in {where}."),
        (0.30, "Interlobular septa are thickened in {where}."),
    ),
}

CONCLUDED: dict[str, str] = {
    "Consolidation": "Consolidation in {where}.",
    "Lung opacity": "Ground-glass density in {where}.",
    "Pleural effusion": "{bilateral} pleural effusion.",
    "Lung nodule": "{plural} in {lungs}, largest {size} mm.",
    "Lymphadenopathy": "Enlarged lymph nodes, {site}.",
    "Pericardial effusion": "Pericardial effusion.",
    "Cardiomegaly": "Cardiomegaly.",
    "Interlobular septal thickening": "Interlobular septal thickening.",
    "Bronchiectasis": "Bronchiectasis in {where}.",
    "Emphysema": "Emphysema in both upper lobes.",
    "Mosaic attenuation pattern": "Mosaic attenuation pattern.",
    "Peribronchial thickening": "Peribronchial thickening.",
    "Atelectasis": "Atelectasis in {where}.",
    "Pulmonary fibrotic sequela": "Fibrotic sequelae in {where}.",
    "Hiatal hernia": "Hiatal hernia.",
    "Coronary artery wall calcification": "Coronary artery calcification.",
    "Arterial wall calcification": "Aortic wall calcification.",
    "Medical material": "Medical material as described.",
}
"""Most urgent first; the impression takes sentences from the top until it is long enough."""

ALL_NORMAL: Choices = (
    (0.80, "Thoracic CT examination within normal limits."),
    (0.14, "No pathology is detected in the thoracic CT."),
    (0.06, "Normal findings in the chest CT examination."),
)
CLOSING: Choices = (
    (0.75, "Correlation with the clinical findings is recommended."),
    (0.25, "Follow-up is recommended where clinically indicated."),
)
